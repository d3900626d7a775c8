//! Uninstalling from within: a daemon cannot remove itself while it runs, so a transient unit does.

use std::path::Path;

use ployz_api::Failure;

use crate::layout::Layout;
use crate::systemd::{is_here, systemctl, systemd_run};
use crate::units::DAEMON_UNIT;

/// The name of the transient unit.
const UNIT: &str = "ployz-uninstall";
/// Time for the answer to the caller, and for the daemon to leave the network.
const WAIT_SECS: u32 = 3;

impl Layout {
    /// Whether the daemon is a service here that can be taken away.
    #[must_use]
    pub fn has_service(&self) -> bool {
        is_here() && self.unit(DAEMON_UNIT).exists()
    }

    /// Has systemd take away the service and everything that belongs to it, in a few seconds; in how many.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: systemd does not take the order.
    pub fn uninstall_soon(&self) -> Result<u32, Failure> {
        // One that was ordered before and has failed is in the way.
        self.stay()?;
        let program = self.program("ployzctl");
        systemd_run(&[
            "--quiet",
            "--collect",
            "--unit",
            UNIT,
            "--on-active",
            &format!("{WAIT_SECS}s"),
            "--timer-property",
            "AccuracySec=100ms",
            &program.display().to_string(),
            "daemon",
            "uninstall",
            "--force",
        ])?;
        Ok(WAIT_SECS)
    }

    /// Takes the order back, if there is one.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: systemd does not answer.
    pub fn stay(&self) -> Result<(), Failure> {
        if Path::new("/run/systemd/transient")
            .join(format!("{UNIT}.timer"))
            .exists()
        {
            systemctl(&["stop", &format!("{UNIT}.timer")])?;
        }
        Ok(())
    }
}
