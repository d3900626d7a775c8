//! The three programs of one version, in a directory.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ployz_api::{Code, Failure};

use crate::files::failed;

/// The programs of an installation, by name and in this order.
pub const PROGRAMS: [&str; 3] = ["nats-server", "ployzctl", "ployzd"];

/// A directory in which all three are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Those in a directory.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED` names what is missing.
    pub fn in_directory(directory: &Path) -> Result<Self, Failure> {
        let missing = PROGRAMS.iter().find(|name| !directory.join(name).is_file());
        if let Some(name) = missing {
            let message = format!("{} is not in {}", name, directory.display());
            return Err(Failure::new(Code::InstallFailed, message)
                .hint("put ployzd, ployzctl and nats-server into one directory"));
        }
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// Those beside the program that runs, itself among them.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED` names what is missing.
    pub fn that_run() -> Result<Self, Failure> {
        // The link in /usr/local/bin is not where the others are; what it leads to is.
        let own = std::env::current_exe().map_err(failed(Path::new("/proc/self/exe")))?;
        let own = fs::canonicalize(&own).map_err(failed(&own))?;
        Self::in_directory(own.parent().unwrap_or_else(|| Path::new("/")))
    }

    /// The directory of the programs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of a program.
    #[must_use]
    pub fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }

    /// Copies them into another directory and onto the disk.
    pub(crate) fn copy_to(&self, directory: &Path) -> Result<(), Failure> {
        for program in PROGRAMS {
            let to = directory.join(program);
            copy(&self.path(program), &to).map_err(failed(&to))?;
        }
        Ok(())
    }

    /// Whether others are the same, byte by byte.
    pub(crate) fn same_as(&self, other: &Self) -> Result<bool, Failure> {
        for program in PROGRAMS {
            let (ours, theirs) = (self.path(program), other.path(program));
            let ours = fs::read(&ours).map_err(failed(&ours))?;
            if ours != fs::read(&theirs).map_err(failed(&theirs))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut file = File::create_new(to)?;
    io::copy(&mut File::open(from)?, &mut file)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()
}
