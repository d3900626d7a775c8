//! Programs of the host that do something and end.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ployz_api::Failure;
use tokio::process::Command;

use crate::host::failure::internal;

/// Runs one to its end; what it says.
///
/// # Errors
/// If it does not end in time, or not well: with what it complains of.
pub(crate) async fn run(
    program: &str,
    line: &[&str],
    patience: Duration,
) -> anyhow::Result<String> {
    let running = Command::new(program)
        .args(line)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(patience, running)
        .await
        .with_context(|| format!("{program} does not end"))?
        .with_context(|| program.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Does something that waits for disks and servers.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| internal(error.into()))?
}
