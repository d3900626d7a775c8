//! The server as a systemd unit, which outlives `ployzd`.

use crate::host::systemd::run;
use crate::nats::error::NatsError;

/// The name of the unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit(String);

impl Unit {
    pub(crate) const fn new(name: String) -> Self {
        Self(name)
    }

    /// Starts the unit, unless it runs, and returns the id of its process.
    pub(crate) async fn start(&self) -> Result<u32, NatsError> {
        run("systemctl", &["start", &self.0]).await?;
        let line = ["show", "--property", "MainPID", "--value", &self.0];
        let said = run("systemctl", &line).await?;
        let pid = said.trim().parse().map_err(|cause| NatsError::NoMainPid {
            unit: self.0.clone(),
            cause,
        })?;
        if pid == 0 {
            return Err(NatsError::EndedAtOnce(self.0.clone()));
        }
        Ok(pid)
    }

    /// Stops the unit. A unit that does not run is no error.
    pub(crate) async fn stop(&self) -> Result<(), NatsError> {
        run("systemctl", &["stop", &self.0]).await?;
        Ok(())
    }
}
