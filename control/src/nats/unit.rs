//! The server as a unit of systemd, which outlives `ployzd` by itself.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// The unit's own deadlines are shorter.
const PATIENCE: Duration = Duration::from_secs(30);

/// Its name, as systemd knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit(String);

impl Unit {
    pub(crate) const fn new(name: String) -> Self {
        Self(name)
    }

    /// Has it run; which process that is.
    pub(crate) async fn start(&self) -> anyhow::Result<u32> {
        self.systemctl(&["start"]).await?;
        let said = self
            .systemctl(&["show", "--property", "MainPID", "--value"])
            .await?;
        let pid = said.trim().parse().context("MainPID")?;
        ensure!(pid != 0, "{} ended at once", self.0);
        Ok(pid)
    }

    /// Ends it. One that does not run is no error.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        self.systemctl(&["stop"]).await.map(drop)
    }

    async fn systemctl(&self, verb: &[&str]) -> anyhow::Result<String> {
        let line = || format!("systemctl {} {}", verb.join(" "), self.0);
        let running = Command::new("systemctl")
            .args(verb)
            .arg(&self.0)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, running)
            .await
            .with_context(line)?
            .with_context(line)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}", line(), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
