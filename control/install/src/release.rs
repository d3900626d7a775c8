//! Releases: what there is, and getting it here once it is known to be genuine.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use ployz_api::{Code, Failure};

use crate::arch::Arch;
use crate::archive;
use crate::base::Base;
use crate::files::{Staging, failed, remove_file};
use crate::programs::Programs;
use crate::signature::PublicKey;
use crate::sums::{self, Summing};
use crate::version::Version;

/// A line for each architecture takes a hundred bytes.
const SUMS_LEN_MAX: u64 = 16 << 10;
/// Minisign's have four lines.
const SIGNATURE_LEN_MAX: u64 = 4 << 10;
const LATEST_LEN_MAX: u64 = 128;
/// The three programs have some 20 MB, compressed.
const ARTIFACT_LEN_MAX: u64 = 256 << 20;
/// What an artifact is called while it lies beside what comes out of it.
const SPOOL: &str = ".artifact";

/// Where releases are from, and whose signature makes them ours.
#[derive(Clone, Debug)]
pub struct Release {
    base: Base,
    key: PublicKey,
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub here: u64,
    /// Bytes in all, if the other side has said so.
    pub all: Option<u64>,
}

impl Release {
    /// Releases of a base that are signed with this key. Nothing is read yet.
    #[must_use]
    pub const fn new(base: Base, key: PublicKey) -> Self {
        Self { base, key }
    }

    /// The latest version that there is.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: the base does not answer, or what it says is not signed, or signed as something else.
    pub fn latest(&self) -> Result<Version, Failure> {
        let text = self.base.read("latest", LATEST_LEN_MAX)?;
        let version: Version = text.trim().parse().map_err(|failure: Failure| {
            Failure::new(
                Code::InstallFailed,
                format!("{}/latest: {failure}", self.base),
            )
        })?;
        self.verify("latest", &text, &format!("ployz latest {version}"))?;
        Ok(version)
    }

    /// Brings the programs of a version into a directory that is not there yet. Nothing is unpacked that is not what its signer
    /// packed; whatever fails, nothing is left.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: there is no such version, it is not signed or signed as another, its digest is another, it has something
    /// else in it, or there is no room.
    pub fn download(
        &self,
        version: &Version,
        arch: Arch,
        directory: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Programs, Failure> {
        let list = format!("{version}/SHA256SUMS");
        let sums = self.base.read(&list, SUMS_LEN_MAX)?;
        self.verify(&list, &sums, &format!("ployz {version}"))?;
        let name = arch.artifact(version);
        let expected = sums::find(&sums, &name)?;

        let staging = Staging::beside(directory)?;
        let spool = staging.path().join(SPOOL);
        let file = File::create_new(&spool).map_err(failed(&spool))?;
        let mut summing = Summing::new(&file);
        let mut tell = |here, all| progress(Progress { here, all });
        let place = format!("{version}/{name}");
        self.base
            .copy(&place, ARTIFACT_LEN_MAX, &mut summing, &mut tell)?;
        summing.flush().map_err(failed(&spool))?;
        if summing.finish().1 != expected {
            let message = format!(
                "{}/{place} is not to be trusted: its SHA-256 is another",
                self.base
            );
            return Err(Failure::new(Code::InstallFailed, message)
                .hint("nothing was changed; it was altered, or damaged on the way: try again"));
        }
        let file = File::open(&spool).map_err(failed(&spool))?;
        archive::unpack(file, version, staging.path())?;
        remove_file(&spool)?;
        staging.keep_as(directory)?;
        Programs::in_directory(directory)
    }

    fn verify(&self, name: &str, content: &str, comment: &str) -> Result<(), Failure> {
        let signature = self
            .base
            .read(&format!("{name}.minisig"), SIGNATURE_LEN_MAX)?;
        let shown = format!("{}/{name}", self.base);
        self.key
            .verify(&shown, content.as_bytes(), &signature, comment)
    }
}

#[cfg(test)]
mod tests;
