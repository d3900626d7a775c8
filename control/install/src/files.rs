//! Writing so that a power cut leaves the one or the other.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ployz_api::{Code, Failure};

/// The failure for an error with a file.
pub(crate) fn failed(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| {
        let failure = Failure::new(Code::InstallFailed, format!("{path}: {error}"));
        if error.kind() == io::ErrorKind::StorageFull {
            return failure.hint("free disk space, then run the same command again");
        }
        if error.kind() == io::ErrorKind::PermissionDenied {
            return failure.hint("run it as root");
        }
        failure
    }
}

/// Makes the names in a directory last.
pub(crate) fn sync_directory(path: &Path) -> Result<(), Failure> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(failed(path))
}

/// Has a symbolic link lead somewhere, whether it was there or not.
pub(crate) fn set_link(link: &Path, target: &Path) -> Result<(), Failure> {
    let beside = beside(link);
    remove_file(&beside)?;
    symlink(target, &beside).map_err(failed(&beside))?;
    fs::rename(&beside, link).map_err(failed(link))?;
    sync_directory(parent(link))
}

/// Removes a file or a link; one that is not there is no error.
pub(crate) fn remove_file(path: &Path) -> Result<(), Failure> {
    gone(fs::remove_file(path)).map_err(failed(path))
}

/// Removes a directory with everything in it; one that is not there is no error.
pub(crate) fn remove_directory(path: &Path) -> Result<(), Failure> {
    gone(fs::remove_dir_all(path)).map_err(failed(path))
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The name that something has until it is complete.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// A directory that goes, with everything in it, unless it is kept.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
}

impl Staging {
    /// Makes an empty one beside the directory that it is to become; what a power cut has left there goes first.
    pub(crate) fn beside(directory: &Path) -> Result<Self, Failure> {
        let path = beside(directory);
        remove_directory(&path)?;
        fs::create_dir_all(&path).map_err(failed(&path))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it the name that it is to have from now on, once all of it is on disk.
    pub(crate) fn keep_as(self, path: &Path) -> Result<(), Failure> {
        sync_directory(&self.path)?;
        fs::rename(&self.path, path).map_err(failed(path))?;
        sync_directory(parent(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove; otherwise the next one that is made removes it.
        let _gone = fs::remove_dir_all(&self.path);
    }
}
