//! Several files that change together: kept, or put back as they were.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ployz_api::Failure;

use crate::files::{beside, failed, parent, remove_file, set_link, sync_directory};

/// Every change since it was made. Unless they are kept, dropping it undoes them, the last one first.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    before: Vec<(PathBuf, Before)>,
}

/// The former state of a path.
#[derive(Debug)]
enum Before {
    Nothing,
    NoDirectory,
    File { content: Vec<u8>, mode: u32 },
    Link(PathBuf),
}

impl Changes {
    /// Has a file with this content be there; whether it was not so already.
    pub(crate) fn file(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<bool, Failure> {
        let before = Before::of(path).map_err(failed(path))?;
        if matches!(&before, Before::File { content: old, .. } if old == content) {
            return Ok(false);
        }
        self.make_directory(parent(path))?;
        self.before.push((path.to_owned(), before));
        write(path, content, mode)?;
        Ok(true)
    }

    /// Has a symbolic link lead somewhere; whether it did not do so already.
    pub(crate) fn link(&mut self, link: &Path, target: &Path) -> Result<bool, Failure> {
        let before = Before::of(link).map_err(failed(link))?;
        if matches!(&before, Before::Link(old) if old == target) {
            return Ok(false);
        }
        self.make_directory(parent(link))?;
        self.before.push((link.to_owned(), before));
        set_link(link, target)?;
        Ok(true)
    }

    /// The paths that were changed.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let paths = self.before.iter().map(|(path, _)| path);
        paths.cloned().collect()
    }

    /// They stay.
    pub(crate) fn keep(mut self) {
        self.before.clear();
    }

    fn make_directory(&mut self, path: &Path) -> Result<(), Failure> {
        if !path.exists() {
            fs::create_dir_all(path).map_err(failed(path))?;
            self.before.push((path.to_owned(), Before::NoDirectory));
        }
        Ok(())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        while let Some((path, before)) = self.before.pop() {
            // What cannot be put back has a cause that is told already: the one that made us undo all of it.
            let _as_good_as_it_gets = before.restore(&path);
        }
    }
}

impl Before {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Nothing),
            metadata => metadata?,
        };
        if metadata.is_symlink() {
            return Ok(Self::Link(fs::read_link(path)?));
        }
        let mode = metadata.permissions().mode();
        let content = fs::read(path)?;
        Ok(Self::File { content, mode })
    }

    fn restore(self, path: &Path) -> Result<(), Failure> {
        match self {
            Self::Nothing => remove_file(path),
            // This fails, as it should, if there is something in the directory by now.
            Self::NoDirectory => fs::remove_dir(path).map_err(failed(path)),
            Self::File { content, mode } => write(path, &content, mode),
            Self::Link(target) => set_link(path, &target),
        }
    }
}

/// Written beside, and renamed when it is on the disk.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let beside = beside(path);
    let written = write_whole(&beside, content, mode).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        remove_file(&beside)?;
        return Err(failed(path)(error));
    }
    sync_directory(parent(path))
}

fn write_whole(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(path)?;
    // Whatever the umask, and also if it was there.
    file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::TestDirectory;

    /// A file, a link and something new are changed; how they look after `end`.
    fn changed(end: impl FnOnce(Changes)) -> [Option<String>; 3] {
        let place = TestDirectory::new();
        let [file, link, new] = ["file", "link", "sub/new"].map(|name| place.path().join(name));
        fs::write(&file, "old").unwrap();
        set_link(&link, Path::new("old")).unwrap();
        let mut changes = Changes::default();
        assert!(!changes.file(&file, b"old", 0o644).unwrap());
        assert!(!changes.link(&link, Path::new("old")).unwrap());
        assert!(changes.file(&file, b"new", 0o644).unwrap());
        assert!(changes.file(&file, b"newer", 0o644).unwrap());
        assert!(changes.link(&link, Path::new("new")).unwrap());
        assert!(changes.file(&new, b"new", 0o600).unwrap());
        assert_eq!(
            fs::metadata(&new).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(changes.paths().len(), 5, "with the directory");
        end(changes);
        assert_eq!(new.exists(), new.parent().unwrap().exists());
        let target = fs::read_link(&link).ok();
        [
            fs::read_to_string(&file).ok(),
            target.map(|target| target.display().to_string()),
            fs::read_to_string(&new).ok(),
        ]
    }

    #[test]
    fn all_of_it_stays_or_none_of_it() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            changed(Changes::keep),
            [some("newer"), some("new"), some("new")]
        );
        assert_eq!(changed(drop), [some("old"), some("old"), None]);
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_beside() {
        let place = TestDirectory::new();
        let directory = place.directory("taken");
        let mut changes = Changes::default();
        assert!(changes.file(&directory, b"x", 0o644).is_err());
        drop(changes);
        assert_eq!(place.entries(), ["taken"]);
    }
}
