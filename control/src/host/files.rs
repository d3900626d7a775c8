//! The data directory: one daemon's, mode 0700, and every file in it 0600 and written whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::host::error::HostError;

/// An open data directory, which no other daemon can open.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl DataDirectory {
    /// Opens the directory, and creates it first if it does not exist.
    pub(crate) fn open(path: &Path) -> Result<Self, HostError> {
        if !path.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(HostError::file("create", path))?;
        }
        let metadata = fs::metadata(path).map_err(HostError::file("open", path))?;
        let path = path.to_owned();
        if metadata.uid() != nix::unistd::geteuid().as_raw() {
            return Err(HostError::ForeignDirectory { path });
        }
        fs::set_permissions(&path, Permissions::from_mode(0o700))
            .map_err(HostError::file("set the permissions of", &path))?;
        let lock = path.join("lock");
        let file = private().create(true).truncate(false).open(&lock);
        let file = file.map_err(HostError::file("open", &lock))?;
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            return Err(HostError::DirectoryInUse { path });
        };
        Ok(Self { path, _lock: lock })
    }

    /// The path of a file in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a file; `None` if it does not exist.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, HostError> {
        let path = self.path(name);
        let text = match fs::read(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(HostError::file("read", &path)(error)),
        };
        match serde_json::from_slice(&text) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                let cause = error.to_string();
                Err(HostError::Damaged { path, cause })
            }
        }
    }

    /// Reads a file that [`Self::rewrite`] has written, or its previous copy if it is damaged or missing.
    pub(crate) fn read_last_good<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<T>, HostError> {
        match self.read(name) {
            Ok(Some(value)) => Ok(Some(value)),
            Ok(None) => self.read(&before(name)),
            Err(error) => {
                tracing::warn!(%error, "using the previous copy of the file");
                self.read(&before(name))
            }
        }
    }

    /// Writes a file, and keeps its previous copy.
    pub(crate) fn rewrite(&self, name: &str, value: &impl Serialize) -> Result<(), HostError> {
        let kept = self.path(&before(name));
        self.remove(&before(name))?;
        match fs::hard_link(self.path(name), &kept) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(HostError::file("create", &kept)(error));
            }
            Ok(()) | Err(_) => {}
        }
        self.write(name, value)
    }

    /// Removes a file that [`Self::rewrite`] has written, and its previous copy.
    pub(crate) fn forget(&self, name: &str) -> Result<(), HostError> {
        // The copy first: without the file, it would be taken for it.
        self.remove(&before(name))?;
        self.remove(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, value: &impl Serialize) -> Result<(), HostError> {
        let rendered = serde_json::to_vec_pretty(value).map_err(HostError::render(name));
        let text = Zeroizing::new(rendered?);
        self.write_bytes(name, &text)
    }

    /// Writes a file with these bytes.
    pub(crate) fn write_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), HostError> {
        let path = self.path(name);
        replace(&path, bytes).map_err(HostError::file("write", &path))
    }

    /// Creates a directory in the data directory.
    pub(crate) fn make_directory(&self, name: &str) -> Result<(), HostError> {
        let path = self.path(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(HostError::file("create", &path))
    }

    /// Renames a file or directory; the new name must be free.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), HostError> {
        let path = self.path(from);
        let renamed =
            fs::rename(&path, self.path(to)).and_then(|()| File::open(&self.path)?.sync_all());
        renamed.map_err(HostError::file("rename", &path))
    }

    /// Removes a file or directory, if it exists.
    pub(crate) fn remove(&self, name: &str) -> Result<(), HostError> {
        let path = self.path(name);
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(HostError::file("remove", &path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The name of the previous copy that [`DataDirectory::rewrite`] keeps.
fn before(name: &str) -> String {
    format!("{name}.before")
}

/// Writes beside the file, then renames over it: a reader finds the old file or the new one, also after a power cut. A
/// full disk leaves the old file and nothing else.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let written = write_whole(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _never_made = fs::remove_file(&beside);
    }
    written?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = private().create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_private_and_one_daemons() {
        let path = std::env::temp_dir().join(format!("ployz-files-{}", std::process::id()));
        let files = DataDirectory::open(&path).unwrap();
        files.write("a.json", &"secret").unwrap();
        assert_eq!(
            files.read::<String>("a.json").unwrap().as_deref(),
            Some("secret")
        );
        assert_eq!(files.read::<String>("b.json").unwrap(), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(&files.path("a.json"))), (0o700, 0o600));
        assert!(
            DataDirectory::open(&path)
                .unwrap_err()
                .to_string()
                .contains("in use")
        );
        files.write_bytes("a.json", b"{").unwrap();
        let error = files.read::<String>("a.json").unwrap_err().to_string();
        assert!(error.contains("a.json is damaged"), "{error}");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_is_rewritten_has_a_copy_to_fall_back_on() {
        let path = std::env::temp_dir().join(format!("ployz-copies-{}", std::process::id()));
        let files = DataDirectory::open(&path).unwrap();
        let read = || files.read_last_good::<u32>("a.json").unwrap();
        assert_eq!(read(), None);
        files.rewrite("a.json", &1).unwrap();
        files.rewrite("a.json", &2).unwrap();
        assert_eq!(read(), Some(2));
        files.write_bytes("a.json", b"{").unwrap();
        assert_eq!(read(), Some(1));
        files.remove("a.json").unwrap();
        assert_eq!(read(), Some(1));
        files.write_bytes("a.json.before", b"{").unwrap();
        assert!(files.read_last_good::<u32>("a.json").is_err());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let path = std::env::temp_dir().join(format!("ployz-full-{}", std::process::id()));
        let files = DataDirectory::open(&path).unwrap();
        // A directory of that name cannot be replaced by a file.
        files.make_directory("a.json").unwrap();
        let error = files.write("a.json", &1).unwrap_err().to_string();
        assert!(error.contains("a.json"), "{error}");
        assert!(files.path("a.json").is_dir() && !files.path("a.new").exists());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_directory_that_others_could_read_is_closed_to_them_and_free_when_its_daemon_has_ended() {
        let path = std::env::temp_dir().join(format!("ployz-open-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        fs::write(path.join("a.json"), "1").unwrap();
        fs::set_permissions(path.join("a.json"), Permissions::from_mode(0o644)).unwrap();
        let files = DataDirectory::open(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        files.write("a.json", &2).unwrap();
        assert_eq!(mode(&files.path("a.json")), 0o600, "it is a new file");
        files.make_directory("below/it").unwrap();
        assert_eq!(mode(&files.path("below")), 0o700);
        assert_eq!(mode(&files.path("below/it")), 0o700);
        drop(files);
        let files = DataDirectory::open(&path).unwrap();
        assert_eq!(files.read::<u32>("a.json").unwrap(), Some(2));
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_a_power_cut_left_half_written_is_never_read_and_is_written_over() {
        let path = std::env::temp_dir().join(format!("ployz-half-{}", std::process::id()));
        let files = DataDirectory::open(&path).unwrap();
        files.write("a.json", &"whole").unwrap();
        fs::write(files.path("a.new"), "\"hal").unwrap();
        let read = || files.read::<String>("a.json").unwrap();
        assert_eq!(read().as_deref(), Some("whole"));
        files.write("a.json", &"next").unwrap();
        assert_eq!(read().as_deref(), Some("next"));
        assert!(!files.path("a.new").exists());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_is_removed_or_renamed_is_gone_and_removing_it_again_is_no_failure() {
        let path = std::env::temp_dir().join(format!("ployz-gone-{}", std::process::id()));
        let files = DataDirectory::open(&path).unwrap();
        files.make_directory("next").unwrap();
        files.write_bytes("next/a", b"1").unwrap();
        files.rename("next", "now").unwrap();
        assert_eq!(fs::read(files.path("now/a")).unwrap(), b"1");
        let error = files.rename("next", "now").unwrap_err().to_string();
        assert!(error.contains("next"), "{error}");
        for _ in 0..2 {
            files.remove("now").unwrap();
            files.remove("never-was.json").unwrap();
            assert!(!files.path("now").exists());
        }
        fs::remove_dir_all(path).unwrap();
    }
}
