//! The server as a unit of systemd, which outlives `ployzd` by itself.

use anyhow::{Context as _, ensure};

use crate::host::systemd::run;

/// Its name, as systemd knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit(String);

impl Unit {
    pub(crate) const fn new(name: String) -> Self {
        Self(name)
    }

    /// Has it run; which process that is.
    pub(crate) async fn start(&self) -> anyhow::Result<u32> {
        run("systemctl", &["start", &self.0]).await?;
        let line = ["show", "--property", "MainPID", "--value", &self.0];
        let said = run("systemctl", &line).await?;
        let pid = said.trim().parse().context("MainPID")?;
        ensure!(pid != 0, "{} ended at once", self.0);
        Ok(pid)
    }

    /// Ends it. One that does not run is no error.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        run("systemctl", &["stop", &self.0]).await?;
        Ok(())
    }
}
