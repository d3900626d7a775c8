//! The content of a volume: listed on the machine that a workload is moved from, recreated on the one that it is moved
//! to.
//!
//! Paths come from another machine and are not trusted: nothing outside the volume is read or written. No component of
//! a path leads up, and none is a link, as links are created when everything else is complete. What is in the volume is
//! not trusted either: a process that the workload has left behind may change it while root reads it, so the kernel
//! opens each path without a link in it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, lchown,
    symlink,
};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use ployz_api::{EntryKind, VOLUME_CHUNK_LEN, VOLUME_ENTRIES_MAX, VolumeEntries, VolumeEntry};

use crate::host::error::HostError;
use crate::workloads::error::WorkloadError;

/// Permissions and the sticky bit. Set-user-ID and set-group-ID programs are not copied as such.
const MODE: u32 = 0o1777;
const NS_PER_SEC: i64 = 1_000_000_000;

/// The next entries of a volume: the volume first, and each directory before its content.
pub(crate) fn entries(root: &Path, after: Option<&str>) -> Result<VolumeEntries, WorkloadError> {
    let mut found = Found::default();
    if root.exists() {
        found.walk(root, Path::new(""))?;
    }
    let left_out = found.left_out;
    let mut all = found.sorted();
    let known = after.map_or(0, |after| {
        all.partition_point(|it| it.path.as_str() <= after)
    });
    let mut entries = all.split_off(known);
    let more = entries.len() > VOLUME_ENTRIES_MAX;
    entries.truncate(VOLUME_ENTRIES_MAX);
    Ok(VolumeEntries {
        entries,
        left_out,
        more,
    })
}

/// A piece of a file; empty behind its end.
pub(crate) fn bytes(root: &Path, path: &str, offset: u64) -> Result<Vec<u8>, WorkloadError> {
    let full = below(root, path)?;
    let failed = |error| HostError::file("read", &full)(error);
    let mut file = open_below(root, Path::new(path)).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(WorkloadError::path(path, "is no file"));
    }
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = Vec::with_capacity(VOLUME_CHUNK_LEN);
    let mut piece = file.take(VOLUME_CHUNK_LEN as u64);
    piece.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A copy of a volume in the making.
#[derive(Debug)]
pub(super) struct Copy {
    root: PathBuf,
    links: Vec<(PathBuf, VolumeEntry)>,
    /// Owners, permissions and times are set at the end.
    made: Vec<(PathBuf, VolumeEntry)>,
}

impl Copy {
    /// Begins with an empty directory: the remains of an earlier attempt are removed.
    pub(super) fn begin(root: PathBuf) -> Result<Self, WorkloadError> {
        if root.exists() {
            fs::remove_dir_all(&root).map_err(HostError::file("remove", &root))?;
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .map_err(HostError::file("create", &root))?;
        Ok(Self {
            root,
            links: Vec::new(),
            made: Vec::new(),
        })
    }

    /// Creates an entry; [`Self::append`] fills a file.
    pub(super) fn make(&mut self, entry: &VolumeEntry) -> Result<(), WorkloadError> {
        if entry.path.is_empty() && entry.kind == EntryKind::Directory {
            self.made.push((self.root.clone(), entry.clone()));
            return Ok(());
        }
        let path = below(&self.root, &entry.path)?;
        let failed = |error| HostError::file("create", &path)(error);
        match &entry.kind {
            EntryKind::Directory => {
                let directory = DirBuilder::new().mode(0o700).create(&path);
                directory.map_err(failed)?;
                self.made.push((path, entry.clone()));
            }
            EntryKind::File { .. } => {
                let mut options = OpenOptions::new();
                options
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .map_err(failed)?;
                self.made.push((path, entry.clone()));
            }
            EntryKind::Same { file } => {
                let original = below(&self.root, file)?;
                fs::hard_link(original, &path).map_err(failed)?;
            }
            EntryKind::Link { .. } => self.links.push((path, entry.clone())),
        }
        Ok(())
    }

    /// Writes the next piece of a file.
    pub(super) fn append(&self, path: &str, bytes: &[u8]) -> Result<(), WorkloadError> {
        let path = below(&self.root, path)?;
        let file = OpenOptions::new().append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(bytes));
        Ok(written.map_err(HostError::file("write", &path))?)
    }

    /// Creates the links, sets owners, permissions and times, and syncs everything to disk.
    pub(super) fn end(self) -> Result<(), WorkloadError> {
        for (path, entry) in &self.links {
            if let EntryKind::Link { to } = &entry.kind {
                symlink(to, path)
                    .and_then(|()| lchown(path, Some(entry.uid), Some(entry.gid)))
                    .map_err(HostError::file("create", path))?;
            }
        }
        // The content of a directory before the directory, whose time would change otherwise.
        for (path, entry) in self.made.iter().rev() {
            complete(path, entry).map_err(HostError::file("complete", path))?;
        }
        let synced = File::open(&self.root).and_then(|root| root.sync_all());
        Ok(synced.map_err(HostError::file("write", &self.root))?)
    }
}

/// Sets owner, permissions and time of a file or directory, and syncs it to disk.
fn complete(path: &Path, entry: &VolumeEntry) -> io::Result<()> {
    let file = File::open(path)?;
    fchown(&file, Some(entry.uid), Some(entry.gid))?;
    file.set_permissions(Permissions::from_mode(entry.mode & MODE))?;
    file.set_times(FileTimes::new().set_modified(time(entry.modified_ns)))?;
    file.sync_all()
}

/// The entries of a volume that were found so far.
#[derive(Debug, Default)]
struct Found {
    entries: Vec<VolumeEntry>,
    /// For each file with several names, by device and inode: the indices of its entries.
    names: BTreeMap<(u64, u64), Vec<usize>>,
    left_out: u64,
}

impl Found {
    /// Adds the entry of a path, and those below it.
    fn walk(&mut self, root: &Path, within: &Path) -> Result<(), WorkloadError> {
        let place = root.join(within);
        let failed = |error| HostError::file("read", &place)(error);
        let metadata = fs::symlink_metadata(&place).map_err(failed)?;
        // Of a directory, what it is now.
        let directory = metadata.is_dir().then(|| open_below(root, within));
        let directory = directory.transpose().map_err(failed)?;
        let kind = if metadata.is_dir() {
            EntryKind::Directory
        } else if metadata.is_file() {
            EntryKind::File {
                len: metadata.len(),
            }
        } else if metadata.is_symlink() {
            EntryKind::Link {
                to: text(&fs::read_link(&place).map_err(failed)?)?,
            }
        } else {
            self.left_out += 1;
            return Ok(());
        };
        if metadata.is_file() && metadata.nlink() > 1 {
            let names = self.names.entry((metadata.dev(), metadata.ino()));
            names.or_default().push(self.entries.len());
        }
        let second_ns = metadata.mtime().saturating_mul(NS_PER_SEC);
        let modified_ns = second_ns.saturating_add(metadata.mtime_nsec());
        self.entries.push(VolumeEntry {
            path: text(within)?,
            mode: metadata.mode() & MODE,
            uid: metadata.uid(),
            gid: metadata.gid(),
            // The time of a link is when it was created.
            modified_ns: if metadata.is_symlink() {
                0
            } else {
                modified_ns
            },
            kind,
        });
        if let Some(directory) = directory {
            let listed = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
            for entry in fs::read_dir(listed).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                self.walk(root, &within.join(name))?;
            }
        }
        Ok(())
    }

    /// The entries sorted by path. The first name of a file stands for its content.
    fn sorted(mut self) -> Vec<VolumeEntry> {
        for names in self.names.values() {
            let paths = names.iter().map(|at| self.entries[*at].path.clone());
            let first = paths.min().unwrap_or_default();
            for at in names {
                if self.entries[*at].path != first {
                    let file = first.clone();
                    self.entries[*at].kind = EntryKind::Same { file };
                }
            }
        }
        self.entries.sort_by(|a, b| a.path.cmp(&b.path));
        self.entries
    }
}

/// Opens a file or directory of a volume to read it. No link is followed, and no pipe is waited for.
fn open_below(root: &Path, path: &Path) -> io::Result<File> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(File::open(root)?, path, how) {
        Ok(opened) => Ok(File::from(opened)),
        // A kernel before 5.6.
        Err(Errno::ENOSYS) => File::open(root.join(path)),
        Err(error) => Err(error.into()),
    }
}

fn text(path: &Path) -> Result<String, WorkloadError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| WorkloadError::path(&path.display().to_string(), "is no UTF-8"))
}

fn time(ns: i64) -> SystemTime {
    let span = Duration::from_nanos(ns.unsigned_abs());
    if ns < 0 {
        SystemTime::UNIX_EPOCH - span
    } else {
        SystemTime::UNIX_EPOCH + span
    }
}

/// A path below the volume, of which no component leads elsewhere.
fn below(root: &Path, path: &str) -> Result<PathBuf, WorkloadError> {
    let mut full = root.to_owned();
    for component in Path::new(path).components() {
        let Component::Normal(name) = component else {
            return Err(WorkloadError::path(path, "does not lie in the volume"));
        };
        full.push(name);
        let is_link = fs::symlink_metadata(&full).is_ok_and(|it| it.is_symlink());
        if is_link {
            return Err(WorkloadError::path(path, "leads through a link"));
        }
    }
    if full == root {
        return Err(WorkloadError::path(path, "names no entry of the volume"));
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    struct Ground(PathBuf);

    impl Ground {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ployz-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Ground {
        fn drop(&mut self) {
            let _already_gone = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_copy_has_what_the_original_has() {
        let ground = Ground::new("volume-copy");
        let (from, to) = (ground.0.join("from"), ground.0.join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/file"), vec![7; VOLUME_CHUNK_LEN + 1]).unwrap();
        fs::write(from.join("a/empty"), "").unwrap();
        symlink("../a", from.join("a/link")).unwrap();
        fs::hard_link(from.join("a/b/file"), from.join("a/same")).unwrap();
        let _socket = UnixListener::bind(from.join("a/socket")).unwrap();
        fs::set_permissions(from.join("a/b"), Permissions::from_mode(0o1500)).unwrap();
        let long_ago = FileTimes::new().set_modified(time(-1_500_000_000));
        let file = File::open(from.join("a/empty")).unwrap();
        file.set_times(long_ago).unwrap();
        File::open(&from).unwrap().set_times(long_ago).unwrap();
        fs::create_dir_all(to.join("left")).unwrap();
        let mut copy = Copy::begin(to.clone()).unwrap();
        let list = entries(&from, None).unwrap();
        for entry in &list.entries {
            copy.make(entry).unwrap();
            if let EntryKind::File { len } = entry.kind {
                let mut offset = 0;
                while offset < len {
                    let piece = bytes(&from, &entry.path, offset).unwrap();
                    copy.append(&entry.path, &piece).unwrap();
                    offset += piece.len() as u64;
                }
            }
        }
        copy.end().unwrap();
        assert_eq!(entries(&to, None).unwrap().entries, list.entries);
        assert_eq!(
            fs::read(to.join("a/b/file")).unwrap().len(),
            VOLUME_CHUNK_LEN + 1
        );
        assert!(!to.join("left").exists() && !to.join("a/socket").exists());
        assert_eq!(list.left_out, 1);
        let inode = |path: &str| fs::metadata(to.join(path)).unwrap().ino();
        assert_eq!(inode("a/b/file"), inode("a/same"));
        let rest = entries(&from, Some("a/empty")).unwrap();
        assert_eq!(rest.entries, list.entries[5..], "{:?}", list.entries);
    }

    #[test]
    fn nothing_is_touched_outside() {
        let ground = Ground::new("volume-outside");
        let volume = ground.0.join("volume");
        fs::write(ground.0.join("secret"), "s").unwrap();
        let mut copy = Copy::begin(volume.clone()).unwrap();
        symlink("..", volume.join("up")).unwrap();
        for path in [
            "../secret",
            "/etc/passwd",
            "up/secret",
            "",
            "a/../../secret",
        ] {
            assert!(bytes(&volume, path, 0).is_err(), "{path}");
            let entry = VolumeEntry {
                path: path.to_owned(),
                mode: 0o600,
                uid: 0,
                gid: 0,
                modified_ns: 0,
                kind: EntryKind::File { len: 0 },
            };
            assert!(copy.make(&entry).is_err(), "{path}");
            let file = path.to_owned();
            let same = VolumeEntry {
                path: "inside".to_owned(),
                kind: EntryKind::Same { file },
                ..entry
            };
            assert!(copy.make(&same).is_err(), "{path}");
        }
        assert_eq!(fs::read(ground.0.join("secret")).unwrap(), b"s");
    }

    /// As if the links had come after the look at the path.
    #[test]
    fn no_link_is_followed_whenever_it_was_made() {
        let ground = Ground::new("volume-race");
        let volume = ground.0.join("volume");
        fs::create_dir_all(volume.join("deep")).unwrap();
        fs::write(volume.join("deep/file"), "f").unwrap();
        fs::create_dir(ground.0.join("outside")).unwrap();
        fs::write(ground.0.join("outside/file"), "secret").unwrap();
        assert!(open_below(&volume, Path::new("deep/file")).is_ok());
        assert!(open_below(&volume, Path::new("")).is_ok());
        fs::remove_dir_all(volume.join("deep")).unwrap();
        symlink(ground.0.join("outside"), volume.join("deep")).unwrap();
        symlink(ground.0.join("outside/file"), volume.join("file")).unwrap();
        for path in ["deep/file", "deep", "file", "../outside/file"] {
            assert!(open_below(&volume, Path::new(path)).is_err(), "{path}");
        }
    }
}
