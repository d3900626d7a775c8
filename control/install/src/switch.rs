//! Exchanging the version that runs, watched by somebody who depends on neither.
//!
//! ```text
//!   switch ──▶ watched ──┬─ confirm ──────────────▶ confirmed
//!                        └─ revert, time is up,
//!                           or it ends by itself ─▶ reverted (kept, if that was wanted)
//! ```

use std::fs;
use std::time::Duration;

use ployz_api::{Code, Failure, Switch};

use crate::files::{failed, remove_file};
use crate::layout::Layout;
use crate::systemd::{is_active, run_aside};
use crate::version::Version;

const SCRIPT: &str = include_str!("switch.sh");
const UNIT: &str = "ployz-switch.service";
/// Written by the script.
const STATE: &str = "switch";
/// Read by it.
const VERDICT: &str = "verdict";

impl Layout {
    /// Has an installed version run instead of the current one, in a moment. Unless that is confirmed within `patience`, or if it ends by
    /// itself again and again, the current one runs again; without `rollback`, it stays.
    ///
    /// # Errors
    ///
    /// `VERSION_MISMATCH` for an earlier version; `INSTALL_FAILED`: it is not installed, or systemd refuses; `BUSY` while another switch
    /// is being watched.
    pub fn switch(
        &self,
        version: &Version,
        patience: Duration,
        rollback: bool,
    ) -> Result<(), Failure> {
        let Some(current) = self.current() else {
            let message = "the daemon is not one that ployzctl daemon install has installed";
            return Err(Failure::new(Code::Unsupported, message).hint("ployzctl daemon install"));
        };
        current.refuse_downgrade(version)?;
        self.programs(version)?;
        if is_active(UNIT) {
            let message = "another version is being tried on this machine";
            return Err(Failure::new(Code::Busy, message).hint("wait until that is over"));
        }
        // What is said there is of the last time.
        remove_file(&self.directory().join(STATE))?;
        let directory = self.directory().display().to_string();
        let (version, current) = (version.to_string(), current.to_string());
        let secs = patience.as_secs().to_string();
        let rollback = if rollback { "yes" } else { "no" };
        let script = ["/bin/sh", "-c", SCRIPT, "switch", &directory];
        run_aside(
            UNIT,
            &[&script[..], &[&version, &current, &secs, rollback]].concat(),
        )
    }

    /// Says of the version that is being watched whether it stays.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: that cannot be written down.
    pub fn say_verdict(&self, stays: bool) -> Result<(), Failure> {
        let path = self.directory().join(VERDICT);
        let word = if stays { "confirm" } else { "revert" };
        fs::write(&path, word).map_err(failed(&path))
    }

    /// How far the last switch is.
    #[must_use]
    pub fn switch_state(&self) -> Switch {
        let text = fs::read_to_string(self.directory().join(STATE)).unwrap_or_default();
        match text.trim() {
            "watched" => Switch::Watched,
            "confirmed" => Switch::Confirmed,
            "reverted" => Switch::Reverted,
            "kept" => Switch::Kept,
            _ => Switch::None,
        }
    }
}
