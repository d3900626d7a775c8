//! The origin of the programs that a host gets.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use ployz_api::{Code, Failure};
use ployz_install::{Arch, Programs, Release, Version, pack};

use crate::arguments::{InstallSource, ProvisionArguments};

/// A repository that is built on the host itself.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    pub(crate) url: String,
    /// A branch, a tag or a commit.
    pub(crate) reference: String,
}

/// An artifact, packed.
pub(crate) type Artifact = Rc<[u8]>;

/// Programs for any host: of a release, or of this very installation.
#[derive(Debug)]
pub(crate) struct Artifacts {
    /// None for the programs that run here.
    release: Option<Release>,
    version: Version,
    /// Artifacts by architecture, since several hosts have the same one.
    packed: RefCell<BTreeMap<String, Artifact>>,
}

/// The origin of the programs.
#[derive(Debug)]
pub(crate) enum Source {
    Artifacts(Artifacts),
    Git(Git),
}

impl Source {
    /// Reads the flags. Without a version, a release is asked for its latest one.
    ///
    /// Fails with `INVALID_ARGUMENT` if the flags do not go together, and as a release does.
    pub(crate) fn chosen(arguments: &ProvisionArguments) -> Result<Self, Failure> {
        match arguments.install_source {
            InstallSource::Git => git(arguments).map(Self::Git),
            InstallSource::Release => Artifacts::chosen(arguments).map(Self::Artifacts),
        }
    }
}

fn git(arguments: &ProvisionArguments) -> Result<Git, Failure> {
    let Some(url) = arguments.install_git_url.clone() else {
        let message = "--install-source git needs --install-git-url";
        return Err(Failure::new(Code::InvalidArgument, message).hint("--install-git-url URL"));
    };
    let reference = arguments.install_git_ref.clone();
    Ok(Git {
        url,
        reference: reference.unwrap_or_else(|| "HEAD".to_owned()),
    })
}

impl Artifacts {
    fn chosen(arguments: &ProvisionArguments) -> Result<Self, Failure> {
        let wanted = match arguments.install_version.as_str() {
            "latest" => None,
            version => Some(version.trim_start_matches('v').parse::<Version>()?),
        };
        let release = release(arguments)?;
        let version = match (wanted, &release) {
            (Some(version), _) => version,
            (None, Some(release)) => release.latest()?,
            (None, None) => Version::own(),
        };
        let own = Version::own();
        if release.is_none() && version != own {
            let message = format!(
                "this is version {own}, and no --release-base is given to fetch {version} from"
            );
            return Err(Failure::new(Code::InvalidArgument, message).hint(
                "give --release-base URL --release-key KEY, or leave --install-version out",
            ));
        }
        Ok(Self {
            release,
            version,
            packed: RefCell::default(),
        })
    }

    /// The version that they are of.
    pub(crate) const fn version(&self) -> &Version {
        &self.version
    }

    /// The programs for one architecture, verified and packed.
    ///
    /// Fails as [`Release::download`], and with `UNSUPPORTED` if what runs here was built for another.
    pub(crate) fn get(&self, arch: Arch) -> Result<Artifact, Failure> {
        let key = arch.to_string();
        if let Some(packed) = self.packed.borrow().get(&key) {
            return Ok(Rc::clone(packed));
        }
        let packed: Artifact = match &self.release {
            Some(release) => self.fetch(release, arch)?,
            None => self.own(arch)?,
        }
        .into();
        self.packed.borrow_mut().insert(key, Rc::clone(&packed));
        Ok(packed)
    }

    fn fetch(&self, release: &Release, arch: Arch) -> Result<Vec<u8>, Failure> {
        let scratch = Scratch::new()?;
        let directory = scratch.0.join("programs");
        let programs = release.download(&self.version, arch, &directory, &mut |_| {})?;
        self.pack(&programs)
    }

    fn own(&self, arch: Arch) -> Result<Vec<u8>, Failure> {
        let here = Arch::here()?;
        if arch != here {
            let message = format!(
                "the host needs programs for {arch}, and those on this machine are for {here}"
            );
            return Err(Failure::new(Code::Unsupported, message)
                .hint("give --release-base URL --release-key KEY"));
        }
        self.pack(&Programs::that_run()?)
    }

    fn pack(&self, programs: &Programs) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        pack(programs, &self.version, &mut bytes)?;
        Ok(bytes)
    }
}

fn release(arguments: &ProvisionArguments) -> Result<Option<Release>, Failure> {
    match (&arguments.release_base, &arguments.release_key) {
        (None, None) => Ok(None),
        (Some(base), Some(key)) => Ok(Some(Release::new(base.clone(), key.clone()))),
        (Some(_), None) | (None, Some(_)) => {
            let message = "--release-base and --release-key must be given together";
            Err(Failure::new(Code::InvalidArgument, message)
                .hint("give --release-base URL --release-key KEY"))
        }
    }
}

/// A directory that goes again.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let directory = std::env::temp_dir().join(format!("ployzctl-{}", std::process::id()));
        std::fs::create_dir(&directory)
            .map(|()| Self(directory.clone()))
            .map_err(|error| {
                let message = format!("{}: {error}", directory.display());
                Failure::new(Code::InstallFailed, message)
            })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_dir_all(&self.0);
    }
}
