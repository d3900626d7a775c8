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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;
    use crate::testkit::Place;

    /// Whatever systemd is told here, it says how often the daemon has ended by itself.
    fn switched(verdict: Option<&str>, restarts: u32, rollback: &str) -> (Switch, String) {
        let place = Place::new();
        let directory = place.directory("opt/ployz");
        let systemctl = place.directory("bin").join("systemctl");
        // The verdict comes after the switch: what was said before is of another time.
        let speak = verdict.map_or(String::new(), |it| format!("echo {it} >verdict"));
        let text =
            format!("#!/bin/sh\n[ \"$1\" = restart ] && {{ {speak}; exit; }}\necho {restarts}\n");
        fs::write(&systemctl, text.replace("{ ;", "{ :;")).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.join(VERDICT), "confirm").unwrap();
        let path = format!("{}:/usr/bin:/bin", place.path().join("bin").display());
        let status = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "switch"])
            .arg(&directory)
            .args(["2.0.0", "1.0.0", "1", rollback])
            .env("PATH", path)
            .status();
        status.unwrap();
        let current = fs::read_link(directory.join("current")).unwrap();
        let current = current.file_name().unwrap().to_string_lossy().into_owned();
        (Layout::under(place.path()).switch_state(), current)
    }

    #[test]
    fn a_version_stays_only_if_that_is_confirmed_or_was_wanted_anyway() {
        let (new, former) = ("2.0.0".to_owned(), "1.0.0".to_owned());
        for (verdict, restarts, rollback, expected) in [
            (Some("confirm"), 0, "yes", (Switch::Confirmed, &new)),
            (Some("revert"), 0, "yes", (Switch::Reverted, &former)),
            (None, 0, "yes", (Switch::Reverted, &former)),
            (None, 3, "yes", (Switch::Reverted, &former)),
            (None, 3, "no", (Switch::Kept, &new)),
            (Some("revert"), 0, "no", (Switch::Kept, &new)),
        ] {
            let (state, current) = switched(verdict, restarts, rollback);
            assert_eq!(
                (state, &current),
                expected,
                "{verdict:?} {restarts} {rollback}"
            );
        }
    }
}
