//! The layout of an installation on disk, and its current version.
//!
//! ```text
//! /opt/ployz/versions/0.1.0/{nats-server,ployzctl,ployzd}
//!            versions/0.2.0/…
//!            current  -> versions/0.2.0
//!            previous -> versions/0.1.0
//!            lock
//!            units, units.former       of the last switch
//!            passing, passed           mirrors of a version, for other machines and from them
//! /usr/local/bin/{ployzctl,ployzd} -> /opt/ployz/current/…
//! /etc/ployz/{ployzd.toml,release.pub}
//! /etc/systemd/system/{ployzd,ployz-nats}.service
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use ployz_api::{Code, Failure};

use crate::arch::Arch;
use crate::files::{Staging, failed, remove_directory, remove_file, set_link};
use crate::programs::Programs;
use crate::release::{Progress, Release};
use crate::signature::PublicKey;
use crate::version::Version;

/// Versions that are kept: the current one, the one before it, and one more to go back to.
const VERSIONS_MAX: usize = 3;

/// The path of the public key of later versions.
pub(crate) const RELEASE_KEY: &str = "etc/ployz/release.pub";

/// An installation, under a root directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

/// Held while an installation is changed.
#[derive(Debug)]
struct Locked(#[expect(dead_code, reason = "held, not looked at")] File);

impl Layout {
    /// That of this machine.
    #[must_use]
    pub fn system() -> Self {
        Self::under(Path::new("/"))
    }

    /// The same below another directory.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The directory of a version's programs, if it is installed.
    #[must_use]
    pub fn version_directory(&self, version: &Version) -> PathBuf {
        self.versions().join(version.to_string())
    }

    /// The versions that are installed, the oldest first.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: the directory cannot be read.
    pub fn installed(&self) -> Result<Vec<Version>, Failure> {
        let directory = self.versions();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed(&directory))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut versions: Vec<Version> = names.filter_map(|name| name.parse().ok()).collect();
        versions.sort();
        Ok(versions)
    }

    /// Whether a program is one of an installed version.
    #[must_use]
    pub fn holds(&self, program: &Path) -> bool {
        program.starts_with(self.versions())
    }

    /// The key that later versions have to be signed with.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: there is none, or it is damaged.
    pub fn release_key(&self) -> Result<PublicKey, Failure> {
        PublicKey::read(&self.root.join(RELEASE_KEY))
    }

    /// The programs of a version that is installed.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: it is not, or not whole.
    pub fn programs(&self, version: &Version) -> Result<Programs, Failure> {
        Programs::in_directory(&self.version_directory(version))
    }

    /// The version that starts with the next start of the daemon.
    #[must_use]
    pub fn current(&self) -> Option<Version> {
        linked(&self.current_link())
    }

    /// The version that was current before.
    #[must_use]
    pub fn previous(&self) -> Option<Version> {
        linked(&self.previous_link()).filter(|previous| self.current().as_ref() != Some(previous))
    }

    /// Downloads a version of a release, beside the installed ones. An installed version is not fetched again.
    ///
    /// # Errors
    ///
    /// As [`Release::download`]; `BUSY` if another process is changing this installation.
    pub fn fetch(
        &self,
        release: &Release,
        version: &Version,
        arch: Arch,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Programs, Failure> {
        let _locked = self.lock()?;
        let directory = self.version_directory(version);
        if directory.exists() {
            return Programs::in_directory(&directory);
        }
        release.download(version, arch, &directory, progress)
    }

    /// Has programs that are on this machine lie here as a version. Doing it again changes nothing.
    ///
    /// # Errors
    ///
    /// `CONFLICT` if others lie here under that version; `INSTALL_FAILED`, `BUSY`.
    pub fn install(&self, programs: &Programs, version: &Version) -> Result<Programs, Failure> {
        let _locked = self.lock()?;
        let directory = self.version_directory(version);
        if directory.exists() {
            let here = Programs::in_directory(&directory)?;
            if here.directory() == programs.directory() || here.same_as(programs)? {
                return Ok(here);
            }
            let message = format!(
                "{} already contains different programs",
                directory.display()
            );
            return Err(Failure::new(Code::Conflict, message).hint(
                "give the changed programs a new version, or run: ployzctl daemon uninstall",
            ));
        }
        let staging = Staging::beside(&directory)?;
        programs.copy_to(staging.path())?;
        staging.keep_as(&directory)?;
        Programs::in_directory(&directory)
    }

    /// Makes an installed version the current one, and remembers the one that was.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: it is not installed, or the link cannot be made; `BUSY`.
    pub fn activate(&self, version: &Version) -> Result<(), Failure> {
        let _locked = self.lock()?;
        self.make_current(version)
    }

    /// Makes the version current again that was so before; which one that is.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: there is none; `BUSY`.
    pub fn roll_back(&self) -> Result<Version, Failure> {
        let _locked = self.lock()?;
        let previous = self.previous().ok_or_else(|| {
            Failure::new(
                Code::InstallFailed,
                "there is no previous version to roll back to",
            )
        })?;
        self.make_current(&previous)?;
        Ok(previous)
    }

    /// Removes the oldest versions above three, but never the current one nor the one before it, and
    /// what a power cut has left half-made. Returns the versions that were removed.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: something cannot be removed; `BUSY`.
    pub fn prune(&self) -> Result<Vec<Version>, Failure> {
        let _locked = self.lock()?;
        self.remove_half_made()?;
        let installed = self.installed()?;
        let surplus = installed.len().saturating_sub(VERSIONS_MAX);
        let held = [self.current(), self.previous()];
        let old = installed
            .into_iter()
            .filter(|version| !held.contains(&Some(version.clone())));
        let pruned: Vec<Version> = old.take(surplus).collect();
        for version in &pruned {
            remove_directory(&self.version_directory(version))?;
        }
        Ok(pruned)
    }

    fn make_current(&self, version: &Version) -> Result<(), Failure> {
        self.programs(version)?;
        let current = self.current();
        if current.as_ref() == Some(version) {
            return Ok(());
        }
        // In this order: between the two, the one before is as good as none, and never the wrong one.
        if let Some(current) = &current {
            set_link(&self.previous_link(), &target(current))?;
        }
        set_link(&self.current_link(), &target(version))
    }

    fn remove_half_made(&self) -> Result<(), Failure> {
        let directory = self.versions();
        let Ok(entries) = fs::read_dir(&directory) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                remove_directory(&entry.path())?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<Locked, Failure> {
        let directory = self.directory();
        fs::create_dir_all(self.versions()).map_err(failed(&directory))?;
        let path = directory.join("lock");
        let file = File::create(&path).map_err(failed(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Locked(file)),
            Err(TryLockError::WouldBlock) => {
                let message = "another process is changing this installation";
                Err(Failure::new(Code::Busy, message).hint("run the same command again"))
            }
            Err(TryLockError::Error(error)) => Err(failed(&path)(error)),
        }
    }

    /// As before the first version.
    pub(crate) fn clear_current(&self) -> Result<(), Failure> {
        let _locked = self.lock()?;
        remove_file(&self.current_link())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.root.join("opt/ployz")
    }

    fn versions(&self) -> PathBuf {
        self.directory().join("versions")
    }

    fn current_link(&self) -> PathBuf {
        self.directory().join("current")
    }

    fn previous_link(&self) -> PathBuf {
        self.directory().join("previous")
    }
}

/// The target of a link to a version, relative to the directory of the link.
fn target(version: &Version) -> PathBuf {
    Path::new("versions").join(version.to_string())
}

fn linked(link: &Path) -> Option<Version> {
    let target = fs::read_link(link).ok()?;
    target.file_name()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{TestDirectory, programs};

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn with(place: &TestDirectory, versions: &[&str]) -> Layout {
        let layout = Layout::under(place.path());
        for text in versions {
            let programs = programs(&place.path().join("built").join(text), text);
            layout.install(&programs, &version(text)).unwrap();
        }
        layout
    }

    #[test]
    fn a_version_is_current_and_the_one_before_is_remembered() {
        let place = TestDirectory::new();
        let layout = with(&place, &["0.1.0", "0.2.0"]);
        assert_eq!((layout.current(), layout.previous()), (None, None));
        assert!(layout.roll_back().is_err());
        layout.activate(&version("0.1.0")).unwrap();
        assert_eq!(layout.previous(), None);
        layout.activate(&version("0.2.0")).unwrap();
        // As a rerun does.
        layout.activate(&version("0.2.0")).unwrap();
        assert_eq!(layout.previous(), Some(version("0.1.0")));
        let program = place.path().join("opt/ployz/current/ployzd");
        assert!(fs::read_to_string(&program).unwrap().contains("0.2.0"));
        assert_eq!(layout.roll_back(), Ok(version("0.1.0")));
        assert!(fs::read_to_string(&program).unwrap().contains("0.1.0"));
        // And forth again.
        assert_eq!(layout.roll_back(), Ok(version("0.2.0")));
        let missing = layout.activate(&version("0.3.0")).unwrap_err();
        assert_eq!(missing.code, Code::InstallFailed);
        assert_eq!(layout.current(), Some(version("0.2.0")));
    }

    #[test]
    fn a_version_is_installed_once_and_is_not_replaced() {
        let place = TestDirectory::new();
        let layout = with(&place, &["0.1.0", "0.1.0"]);
        let own = layout.programs(&version("0.1.0")).unwrap();
        layout.install(&own, &version("0.1.0")).unwrap();
        let others = programs(&place.path().join("others"), "other");
        let refused = layout.install(&others, &version("0.1.0")).unwrap_err();
        assert_eq!(refused.code, Code::Conflict);
        assert_eq!(layout.programs(&version("0.1.0")), Ok(own));
    }

    #[test]
    fn the_oldest_go_but_never_the_current_one_nor_the_one_before() {
        let place = TestDirectory::new();
        let layout = with(&place, &["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.10.0"]);
        layout.activate(&version("0.2.0")).unwrap();
        layout.activate(&version("0.1.0")).unwrap();
        let half_made = place.directory("opt/ployz/versions/.0.5.0.new");
        assert_eq!(layout.prune(), Ok(vec![version("0.3.0"), version("0.4.0")]));
        let left = ["0.1.0", "0.2.0", "0.10.0"].map(version);
        assert_eq!(layout.installed().unwrap(), left);
        assert!(!half_made.exists());
        assert_eq!(layout.prune(), Ok(Vec::new()));
    }

    #[test]
    fn a_copy_that_fails_leaves_nothing() {
        let place = TestDirectory::new();
        let layout = Layout::under(place.path());
        let broken = programs(&place.path().join("broken"), "1");
        fs::remove_file(broken.path("ployzd")).unwrap();
        let refused = layout.install(&broken, &version("0.1.0")).unwrap_err();
        assert!(refused.message.contains("ployzd"), "{refused}");
        assert_eq!(fs::read_dir(layout.versions()).unwrap().count(), 0);
    }

    #[test]
    fn two_at_a_time_are_one_too_many() {
        let place = TestDirectory::new();
        let layout = with(&place, &["0.1.0"]);
        let held = layout.lock().unwrap();
        assert_eq!(layout.prune().unwrap_err().code, Code::Busy);
        drop(held);
        layout.prune().unwrap();
    }
}
