//! systemd, by its own tools.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// A unit's own deadlines are shorter.
const PATIENCE: Duration = Duration::from_secs(30);

/// Has `systemctl`, `systemd-run` or `journalctl` do something; what it says.
pub(crate) async fn run(program: &str, line: &[&str]) -> anyhow::Result<String> {
    let running = Command::new(program)
        .args(line)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, running)
        .await
        .with_context(|| format!("{program} does not end"))?
        .with_context(|| program.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
