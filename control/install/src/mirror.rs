//! A mirror of a version, for a machine that cannot reach the release base itself.
//!
//! ```text
//!   base ── mirror ──▶ /opt/ployz/passing/<arch>/ ── pieces ──▶ /opt/ployz/passed/ ── fetch ──▶ versions/
//!                       on the one that can                     on the one that cannot
//! ```
//!
//! Both directories are bases with one version in them. What lies there is verified when it is mirrored, and again when
//! it is fetched.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ployz_api::{Code, Failure, ReleaseFile};

use crate::arch::Arch;
use crate::base::Base;
use crate::files::{failed, parent, remove_directory};
use crate::layout::Layout;
use crate::release::{ARTIFACT_LEN_MAX, Release, SUMS};
use crate::version::Version;

const MIRRORS: &str = "passing";
const RECEIVED: &str = "passed";

impl Layout {
    /// Mirrors a version for other machines; returns the base. A version that is mirrored already is not fetched again.
    ///
    /// # Errors
    ///
    /// As [`Release::mirror`].
    pub fn mirror(
        &self,
        release: &Release,
        version: &Version,
        arch: Arch,
    ) -> Result<PathBuf, Failure> {
        let base = self.directory().join(MIRRORS).join(arch.to_string());
        if !base.join(version.to_string()).exists() {
            remove_directory(&base)?;
            fs::create_dir_all(parent(&base)).map_err(failed(&base))?;
            release.mirror(version, arch, &base)?;
        }
        Ok(base)
    }

    /// Keeps a piece of a file that another machine mirrors for this one. The first piece begins the file anew.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for a piece that does not follow the one before, or one more than an artifact may have;
    /// `INSTALL_FAILED`.
    pub fn keep_piece(&self, path: &Path, offset: u64, piece: &[u8]) -> Result<(), Failure> {
        let path = self.directory().join(RECEIVED).join(path);
        fs::create_dir_all(parent(&path)).map_err(failed(&path))?;
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(&path);
        let mut file = file.map_err(failed(&path))?;
        if offset == 0 {
            file.set_len(0).map_err(failed(&path))?;
        }
        let len = file.metadata().map_err(failed(&path))?.len();
        if len != offset || len + piece.len() as u64 > ARTIFACT_LEN_MAX {
            let message = format!(
                "{} has {len} bytes, so a piece at offset {offset} does not follow",
                path.display()
            );
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        file.write_all(piece).map_err(failed(&path))
    }

    /// The base that the pieces form.
    #[must_use]
    pub fn received_mirror(&self) -> Base {
        Base::Directory(self.directory().join(RECEIVED))
    }

    /// Removes the mirrors, those for other machines and those received.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: it cannot be removed.
    pub fn remove_mirrors(&self) -> Result<(), Failure> {
        remove_directory(&self.directory().join(RECEIVED))?;
        remove_directory(&self.directory().join(MIRRORS))
    }
}

/// The path of a version's file within a base.
#[must_use]
pub fn release_path(file: ReleaseFile, version: &Version, arch: Arch) -> PathBuf {
    let name = match file {
        ReleaseFile::Sums => SUMS.to_owned(),
        ReleaseFile::Signature => format!("{SUMS}.minisig"),
        ReleaseFile::Artifact => arch.artifact(version),
    };
    Path::new(&version.to_string()).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{TestDirectory, version};

    #[test]
    fn pieces_follow_one_another_and_the_first_begins_anew() {
        let ground = TestDirectory::new();
        let layout = Layout::under(ground.path());
        let path = release_path(ReleaseFile::Artifact, &version(), Arch::X86_64);
        let keep = |offset, piece: &[u8]| layout.keep_piece(&path, offset, piece);
        let Base::Directory(base) = layout.received_mirror() else {
            panic!("it is on this machine")
        };
        keep(0, b"left").unwrap();
        keep(0, b"ab").unwrap();
        keep(2, b"c").unwrap();
        for offset in [2, 4] {
            assert_eq!(keep(offset, b"d").unwrap_err().code, Code::InvalidArgument);
        }
        assert_eq!(fs::read(base.join(&path)).unwrap(), b"abc");
        let huge = vec![0; usize::try_from(ARTIFACT_LEN_MAX).unwrap() + 1];
        assert_eq!(keep(0, &huge).unwrap_err().code, Code::InvalidArgument);
        layout.remove_mirrors().unwrap();
        assert!(!base.exists());
    }
}
