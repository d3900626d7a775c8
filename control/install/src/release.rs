//! Releases: what there is, and getting it here once it is known to be genuine.

use std::fs::{self, File};
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
pub(crate) const ARTIFACT_LEN_MAX: u64 = 256 << 20;
/// The digests of a version's artifacts.
pub(crate) const SUMS: &str = "SHA256SUMS";
/// The name of an artifact that lies beside its unpacked programs.
const SPOOL: &str = ".artifact";

/// The base of releases and the public key that they are signed with.
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

    /// Whether the base has this version, or an answer at all. Nothing of it is believed yet.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: the base does not answer, or not with such a version.
    pub fn check_version(&self, version: &Version) -> Result<(), Failure> {
        self.base.read(&list(version), SUMS_LEN_MAX).map(drop)
    }

    /// Brings the programs of a version into a directory that is not there yet. Nothing is unpacked that is not what
    /// its signer packed; whatever fails, nothing is left.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: there is no such version, it is not signed or signed as another, its digest is another, it has
    /// something else in it, or there is no room.
    pub fn download(
        &self,
        version: &Version,
        arch: Arch,
        directory: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Programs, Failure> {
        let staging = Staging::beside(directory)?;
        let spool = staging.path().join(SPOOL);
        self.copy_artifact(version, arch, &spool, progress)?;
        let file = File::open(&spool).map_err(failed(&spool))?;
        archive::unpack(file, version, staging.path())?;
        remove_file(&spool)?;
        staging.keep_as(directory)?;
        Programs::in_directory(directory)
    }

    /// Brings what a version consists of for one architecture below a directory that is not there yet, which is a base
    /// with this one version from then on. It is as genuine as what [`Self::download`] unpacks; whatever fails, nothing
    /// is left.
    ///
    /// # Errors
    ///
    /// As [`Self::download`].
    pub fn mirror(&self, version: &Version, arch: Arch, base: &Path) -> Result<(), Failure> {
        let staging = Staging::beside(base)?;
        let directory = staging.path().join(version.to_string());
        fs::create_dir(&directory).map_err(failed(&directory))?;
        let artifact = directory.join(arch.artifact(version));
        self.copy_artifact(version, arch, &artifact, &mut |_| {})?;
        let list = list(version);
        for (name, len_max) in [
            (list.clone(), SUMS_LEN_MAX),
            (format!("{list}.minisig"), SIGNATURE_LEN_MAX),
        ] {
            let path = staging.path().join(&name);
            fs::write(&path, self.base.read(&name, len_max)?).map_err(failed(&path))?;
        }
        staging.keep_as(base)
    }

    /// Copies the artifact of a version to a file that is not there yet. It is what its signer packed.
    fn copy_artifact(
        &self,
        version: &Version,
        arch: Arch,
        path: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Failure> {
        let list = list(version);
        let sums = self.base.read(&list, SUMS_LEN_MAX)?;
        self.verify(&list, &sums, &format!("ployz {version}"))?;
        let name = arch.artifact(version);
        let expected = sums::find(&sums, &name)?;

        let file = File::create_new(path).map_err(failed(path))?;
        let mut summing = Summing::new(&file);
        let mut tell = |here, all| progress(Progress { here, all });
        let place = format!("{version}/{name}");
        self.base
            .copy(&place, ARTIFACT_LEN_MAX, &mut summing, &mut tell)?;
        summing.flush().map_err(failed(path))?;
        if summing.finish().1 != expected {
            let message = format!(
                "{}/{place} is not trusted: its SHA-256 differs from the signed one",
                self.base
            );
            return Err(Failure::new(Code::InstallFailed, message).hint(
                "nothing was changed; the file was altered, or damaged in transit: try again",
            ));
        }
        Ok(())
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

/// The path of a version's digests.
fn list(version: &Version) -> String {
    format!("{version}/{SUMS}")
}

#[cfg(test)]
mod tests;
