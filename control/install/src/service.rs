//! The daemon as a service of the system: installed, and uninstalled.

use std::fs;
use std::path::{Path, PathBuf};

use ployz_api::{Code, Failure};

use crate::changes::Changes;
use crate::docker;
use crate::files::{failed, remove_directory, remove_file};
use crate::layout::{Layout, RELEASE_KEY};
use crate::programs::Programs;
use crate::settings::Settings;
use crate::signature::PublicKey;
use crate::systemd::{is_active, is_here, last_error, systemctl};
use crate::units::{DAEMON_UNIT, NATS_UNIT, UNITS, WORKLOAD_UNITS};
use crate::version::Version;

/// The programs that are linked into the PATH.
const LINKED: [&str; 2] = ["ployzctl", "ployzd"];
/// With it, the machine is in a network.
const MEMBERSHIP: &str = "network.json";

/// The installation to make.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The version, of which these are the programs.
    pub version: Version,
    /// They need not lie where they are to be.
    pub programs: Programs,
    /// The settings that the daemon is started with.
    pub settings: Settings,
    /// The public key of later versions.
    pub release_key: Option<PublicKey>,
}

/// The result of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The version that was current before.
    pub from: Option<Version>,
    /// The files and links that are other than before; none if all of it was there already.
    pub changed: Vec<PathBuf>,
}

/// The state before an installation.
struct Before {
    version: Option<Version>,
    has_programs: bool,
    has_data: bool,
}

impl Layout {
    /// Makes the daemon a service that runs now and after every boot. It answers when this returns. Whatever fails,
    /// everything is as it was before; doing it again changes nothing.
    ///
    /// # Errors
    ///
    /// `UNSUPPORTED` without systemd; `VERSION_MISMATCH` if a later version is here; `INSTALL_FAILED` names what
    /// failed, for a daemon that does not start with its own last words; `CONFLICT`, `BUSY`.
    pub fn install_service(&self, wanted: &Wanted) -> Result<Installed, Failure> {
        can_be_done(&wanted.settings)?;
        let from = self.current();
        if let Some(current) = &from {
            current
                .refuse_downgrade(&wanted.version)
                .map_err(|refused| {
                    refused.hint("keep the installed version, or run: ployzctl daemon uninstall")
                })?;
        }
        let before = Before {
            version: from.clone(),
            has_programs: self.version_directory(&wanted.version).exists(),
            has_data: self.data().exists(),
        };
        self.install(&wanted.programs, &wanted.version)?;
        let mut changes = Changes::default();
        self.write_down(wanted, &mut changes)?;
        let is_new = from.as_ref() != Some(&wanted.version);
        if is_new {
            self.activate(&wanted.version)?;
        }
        let changed = changes.paths();
        if let Err(failure) = start(is_new || !changed.is_empty()) {
            drop(changes);
            return Err(self.put_back(&before, &wanted.version, failure));
        }
        changes.keep();
        self.prune()?;
        Ok(Installed { from, changed })
    }

    /// Takes the service away, and everything that there was of it on this machine: the data as well, and with it who
    /// the machine was.
    ///
    /// # Errors
    ///
    /// `CONFLICT` while the machine is in a network, unless it is forced; `INSTALL_FAILED` names what cannot be
    /// stopped or removed, and a second call goes on from there.
    pub fn uninstall_service(&self, force: bool) -> Result<(), Failure> {
        if !force {
            self.refuse_member()?;
        }
        self.stop_units()?;
        for (unit, _) in UNITS {
            remove_file(&self.unit(unit))?;
            remove_file(&self.enabling(unit))?;
            remove_directory(&self.unit(&format!("{unit}.d")))?;
        }
        if is_here() {
            systemctl(&["daemon-reload"])?;
            // A unit that has failed is remembered until it is told.
            let _none = systemctl(&["reset-failed", DAEMON_UNIT, WORKLOAD_UNITS, NATS_UNIT]);
        }
        remove_directory(&self.data())?;
        remove_directory(&self.root().join("etc/ployz"))?;
        for program in LINKED {
            let link = self.program_link(program);
            // Only our own link: the path may belong to another program.
            if fs::read_link(&link).is_ok_and(|target| target == self.program(program)) {
                remove_file(&link)?;
            }
        }
        remove_directory(&self.directory())
    }

    fn write_down(&self, wanted: &Wanted, changes: &mut Changes) -> Result<(), Failure> {
        let file = self.root().join("etc/ployz/ployzd.toml");
        let before = match fs::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(failed(&file))?,
        };
        let settings = wanted.settings.merged(&before)?;
        changes.file(&file, settings.as_bytes(), 0o644)?;
        if let Some(key) = &wanted.release_key {
            let path = self.root().join(RELEASE_KEY);
            changes.file(&path, format!("{key}\n").as_bytes(), 0o644)?;
        }
        for program in LINKED {
            changes.link(&self.program_link(program), &self.program(program))?;
        }
        for (unit, text) in UNITS {
            changes.file(&self.unit(unit), text.as_bytes(), 0o644)?;
        }
        changes.link(&self.enabling(DAEMON_UNIT), &self.unit(DAEMON_UNIT))?;
        Ok(())
    }

    /// The files are as they were; this is about what runs, and what it has left.
    fn put_back(&self, before: &Before, tried: &Version, failure: Failure) -> Failure {
        let cause = last_error(DAEMON_UNIT).unwrap_or(failure.message);
        let undone = match &before.version {
            Some(version) => self
                .activate(version)
                .and_then(|()| systemctl(&["daemon-reload"]))
                .and_then(|_| systemctl(&["restart", DAEMON_UNIT]))
                .map(|_| format!("{version} is running again")),
            None => systemctl(&["stop", DAEMON_UNIT])
                .and_then(|_| systemctl(&["daemon-reload"]))
                .and_then(|_| self.remove_leftovers(before, tried))
                .map(|()| "nothing is installed".to_owned()),
        };
        let state =
            undone.unwrap_or_else(|error| format!("restoring the previous state failed: {error}"));
        Failure::new(
            Code::InstallFailed,
            format!("ployzd did not start: {cause}; {state}"),
        )
        .hint("journalctl --unit ployzd --lines 20")
    }

    /// Takes away what the first installation of this machine has made, as far as it has made it.
    fn remove_leftovers(&self, before: &Before, tried: &Version) -> Result<(), Failure> {
        self.clear_current()?;
        if !before.has_data {
            remove_directory(&self.data())?;
        }
        if !before.has_programs {
            remove_directory(&self.version_directory(tried))?;
        }
        Ok(())
    }

    fn refuse_member(&self) -> Result<(), Failure> {
        if !self.data().join(MEMBERSHIP).exists() {
            return Ok(());
        }
        let message = "this machine is still a member of a network";
        Err(Failure::new(Code::Conflict, message).hint(
            "remove it first: ployzctl machine rm <this machine> (on another machine), or ployzctl mesh destroy (on the last machine); or use --force",
        ))
    }

    /// The daemon first, which would start the others again.
    fn stop_units(&self) -> Result<(), Failure> {
        if !self.has_service() {
            return Ok(());
        }
        for units in [DAEMON_UNIT, WORKLOAD_UNITS, NATS_UNIT] {
            systemctl(&["stop", units])?;
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.root().join("var/lib/ployz")
    }

    /// The directory of the units that are made on the machine.
    pub(crate) fn systemd(&self) -> PathBuf {
        self.root().join("etc/systemd/system")
    }

    pub(crate) fn unit(&self, unit: &str) -> PathBuf {
        self.systemd().join(unit)
    }

    /// The link that `systemctl enable` makes of a unit's section `[Install]`, for a start at boot.
    fn enabling(&self, unit: &str) -> PathBuf {
        let wants = "etc/systemd/system/multi-user.target.wants";
        self.root().join(wants).join(unit)
    }

    fn program_link(&self, program: &str) -> PathBuf {
        self.root().join("usr/local/bin").join(program)
    }

    /// A program of the current version.
    pub(crate) fn program(&self, program: &str) -> PathBuf {
        self.directory().join("current").join(program)
    }
}

/// Before anything is touched.
fn can_be_done(settings: &Settings) -> Result<(), Failure> {
    if !is_here() {
        let message = "systemd is not running on this machine";
        return Err(Failure::new(Code::Unsupported, message)
            .hint("let your own supervisor run: ployzd run"));
    }
    if settings.runtime == "docker" {
        docker::check(Path::new("/"))?;
    }
    Ok(())
}

/// Type=notify: what is started has said that it is ready.
fn start(is_other: bool) -> Result<(), Failure> {
    if !is_other && is_active(DAEMON_UNIT) {
        return Ok(());
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["restart", DAEMON_UNIT]).map(drop)
}
