//! The switch to another version, supervised by a unit that depends on neither version.
//!
//! ```text
//!   switch ──▶ watched ──┬─ confirm ──────────────▶ confirmed
//!                        └─ revert, time is up,
//!                           or it ends by itself ─▶ reverted (kept, if that was wanted)
//! ```

use std::fs;
use std::time::Duration;

use ployz_api::{Code, Failure, Switch};

use crate::files::{failed, remove_directory, remove_file};
use crate::layout::Layout;
use crate::programs::Programs;
use crate::systemd::{is_active, run, run_aside};
use crate::version::Version;

const SCRIPT: &str = include_str!("switch.sh");
const UNIT: &str = "ployz-switch.service";
/// Written by the script.
const STATE: &str = "switch";
/// Read by it.
const VERDICT: &str = "verdict";
const UNITS: &str = "units";
/// Some kilobytes are written.
const UNITS_WAIT_SECS: &str = "10";

impl Layout {
    /// Has an installed version run instead of the current one, by its own units, in a moment. Unless that is confirmed
    /// within `patience`, or if it ends by itself again and again, the current one runs again, by its; without
    /// `rollback`, the new one stays.
    ///
    /// # Errors
    ///
    /// `VERSION_MISMATCH` for an earlier version; `INSTALL_FAILED`: it is not installed, does not say what its units
    /// are, or systemd refuses; `BUSY` while another switch is being watched.
    pub fn switch(
        &self,
        version: &Version,
        patience: Duration,
        rollback: bool,
    ) -> Result<(), Failure> {
        let Some(current) = self.current() else {
            let message = "the daemon was not installed by ployzctl daemon install";
            return Err(Failure::new(Code::Unsupported, message).hint("ployzctl daemon install"));
        };
        current.refuse_downgrade(version)?;
        let programs = self.programs(version)?;
        if is_active(UNIT) {
            let message = "an update of this machine is already in progress";
            return Err(Failure::new(Code::Busy, message).hint("wait until it has ended"));
        }
        // What is said there is of the last time.
        remove_file(&self.directory().join(STATE))?;
        self.stage_units(&programs)?;
        let systemd = self.systemd().display().to_string();
        let directory = self.directory().display().to_string();
        let (version, current) = (version.to_string(), current.to_string());
        let secs = patience.as_secs().to_string();
        let rollback = if rollback { "yes" } else { "no" };
        let script = ["/bin/sh", "-c", SCRIPT, "switch", &directory];
        run_aside(
            UNIT,
            &[
                &script[..],
                &[&version, &current, &secs, rollback, &systemd],
            ]
            .concat(),
        )
    }

    /// Only a version itself knows its units, so it writes them.
    fn stage_units(&self, programs: &Programs) -> Result<(), Failure> {
        let directory = self.directory().join(UNITS);
        remove_directory(&directory)?;
        let ployzctl = programs.path("ployzctl").display().to_string();
        let output = directory.display().to_string();
        let written = [&ployzctl, "daemon", "units", "--output", &output];
        run("timeout", &[&[UNITS_WAIT_SECS], &written[..]].concat()).map(drop)
    }

    /// Says of the version that is being watched whether it stays.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: that cannot be written down.
    pub fn record_verdict(&self, stays: bool) -> Result<(), Failure> {
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
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::testkit::TestDirectory;

    /// The result of a switch.
    #[derive(Debug, PartialEq, Eq)]
    struct Ended {
        state: Switch,
        current: String,
        /// The units that systemd has, by name.
        units: String,
        reloads: usize,
    }

    /// Whatever systemd is told here, it says how often the daemon has ended by itself.
    fn switched(verdict: Option<&str>, restarts: u32, rollback: &str) -> Ended {
        let place = TestDirectory::new();
        let directory = place.directory("opt/ployz");
        let systemctl = place.directory("bin").join("systemctl");
        assert!(!SCRIPT.contains("${"), "systemd would fill it in");
        // The verdict comes after the switch: what was said before is of another time.
        let speak = verdict.map_or_else(|| ":".to_owned(), |it| format!("echo {it} >verdict"));
        let text = format!(
            "#!/bin/sh\ncase $1 in\n daemon-reload) echo >>reloads ;;\n restart) {speak} ;;\n *) echo {restarts} ;;\nesac\n"
        );
        fs::write(&systemctl, text).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.join(VERDICT), "confirm").unwrap();
        let systemd = place.directory("systemd");
        for (unit, text) in [("kept", "both"), ("other", "former"), ("else", "foreign")] {
            fs::write(systemd.join(unit), text).unwrap();
        }
        let units = place.directory("opt/ployz/units");
        for (unit, text) in [("kept", "both"), ("other", "new"), ("added", "new")] {
            fs::write(units.join(unit), text).unwrap();
        }
        let path = format!("{}:/usr/bin:/bin", place.path().join("bin").display());
        let status = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "switch"])
            .arg(&directory)
            .args(["2.0.0", "1.0.0", "1", rollback])
            .arg(&systemd)
            .env("PATH", path)
            .status();
        status.unwrap();
        let current = fs::read_link(directory.join("current")).unwrap();
        let reloads = fs::read(directory.join("reloads")).unwrap_or_default();
        Ended {
            state: Layout::under(place.path()).switch_state(),
            current: current.file_name().unwrap().to_string_lossy().into_owned(),
            units: contents(&systemd),
            reloads: reloads.len(),
        }
    }

    fn contents(directory: &Path) -> String {
        let entries = fs::read_dir(directory).unwrap().flatten();
        let said = |entry: fs::DirEntry| {
            let (name, text) = (entry.file_name(), fs::read_to_string(entry.path()).unwrap());
            format!("{}={text}", name.to_string_lossy())
        };
        let mut files: Vec<String> = entries.map(said).collect();
        files.sort();
        files.join(" ")
    }

    #[test]
    fn a_version_and_its_units_stay_only_if_that_is_confirmed_or_was_wanted_anyway() {
        for (verdict, restarts, rollback, state) in [
            (Some("confirm"), 0, "yes", Switch::Confirmed),
            (Some("revert"), 0, "yes", Switch::Reverted),
            (None, 0, "yes", Switch::Reverted),
            (None, 3, "yes", Switch::Reverted),
            (None, 3, "no", Switch::Kept),
            (Some("revert"), 0, "no", Switch::Kept),
        ] {
            let goes_back = state == Switch::Reverted;
            let (current, units) = if goes_back {
                ("1.0.0", "else=foreign kept=both other=former")
            } else {
                ("2.0.0", "added=new else=foreign kept=both other=new")
            };
            let expected = Ended {
                state,
                current: current.to_owned(),
                units: units.to_owned(),
                reloads: 1 + usize::from(goes_back),
            };
            let ended = switched(verdict, restarts, rollback);
            assert_eq!(ended, expected, "{verdict:?} {restarts} {rollback}");
        }
    }
}
