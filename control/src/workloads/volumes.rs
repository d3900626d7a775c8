//! What is in a volume: seen on the machine that a workload is moved from, made anew on the one that it is moved to.
//!
//! The paths are another machine's word. Nothing is read or written but below the volume: no component of a path leads up, and none
//! is a link, since those are made when everything else is there.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use ployz_api::{EntryKind, VOLUME_CHUNK_LEN, VOLUME_ENTRIES_MAX, VolumeEntries, VolumeEntry};

/// The next entries of a volume, a directory before what is in it.
pub(crate) fn entries(root: &Path, after: Option<&str>) -> anyhow::Result<VolumeEntries> {
    let mut all = Vec::new();
    if root.exists() {
        walk(root, Path::new(""), &mut all)?;
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    let known = after.map_or(0, |after| {
        all.partition_point(|it| it.path.as_str() <= after)
    });
    let mut entries = all.split_off(known);
    let more = entries.len() > VOLUME_ENTRIES_MAX;
    entries.truncate(VOLUME_ENTRIES_MAX);
    Ok(VolumeEntries { entries, more })
}

/// A piece of a file of it; nothing behind its end.
pub(crate) fn bytes(root: &Path, path: &str, offset: u64) -> anyhow::Result<Vec<u8>> {
    let mut file = File::open(below(root, path)?).with_context(|| path.to_owned())?;
    ensure!(file.metadata()?.is_file(), "{path} is no file");
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(VOLUME_CHUNK_LEN);
    file.take(VOLUME_CHUNK_LEN as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A volume that is being made.
#[derive(Debug)]
pub(super) struct Copy {
    root: PathBuf,
    links: Vec<(PathBuf, String)>,
    /// A directory that nobody may write to is made so in the end.
    modes: Vec<(PathBuf, u32)>,
}

impl Copy {
    /// Begins with nothing: what an attempt before has left goes.
    pub(super) fn begin(root: PathBuf) -> anyhow::Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)?;
        Ok(Self {
            root,
            links: Vec::new(),
            modes: Vec::new(),
        })
    }

    /// Makes an entry; a file is to be filled with [`Self::append`].
    pub(super) fn make(&mut self, entry: &VolumeEntry) -> anyhow::Result<()> {
        let path = below(&self.root, &entry.path)?;
        match &entry.kind {
            EntryKind::Directory => {
                DirBuilder::new().mode(0o700).create(&path)?;
                self.modes.push((path, entry.mode));
            }
            EntryKind::File { .. } => {
                let mut options = OpenOptions::new();
                options
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)?;
                self.modes.push((path, entry.mode));
            }
            EntryKind::Link { to } => self.links.push((path, to.clone())),
        }
        Ok(())
    }

    /// Writes the next piece of a file.
    pub(super) fn append(&self, path: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = below(&self.root, path)?;
        OpenOptions::new()
            .append(true)
            .open(path)?
            .write_all(bytes)?;
        Ok(())
    }

    /// Makes the links, gives everything its permissions, and has it on disk.
    pub(super) fn end(self) -> anyhow::Result<()> {
        for (path, to) in &self.links {
            symlink(to, path)?;
        }
        for (path, mode) in self.modes.iter().rev() {
            fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))?;
            File::open(path)?.sync_all()?;
        }
        Ok(File::open(&self.root)?.sync_all()?)
    }
}

fn walk(root: &Path, within: &Path, all: &mut Vec<VolumeEntry>) -> anyhow::Result<()> {
    for entry in fs::read_dir(root.join(within))? {
        let entry = entry?;
        let path = within.join(entry.file_name());
        let text = path
            .to_str()
            .with_context(|| format!("{} is no UTF-8", path.display()))?;
        let metadata = entry.metadata()?;
        let kind = if metadata.is_dir() {
            EntryKind::Directory
        } else if metadata.is_file() {
            EntryKind::File {
                len: metadata.len(),
            }
        } else if metadata.is_symlink() {
            let to = fs::read_link(entry.path())?;
            let to = to
                .to_str()
                .with_context(|| format!("{} is no UTF-8", to.display()))?;
            EntryKind::Link { to: to.to_owned() }
        } else {
            // Sockets and pipes are made by whoever needs them.
            continue;
        };
        let is_directory = kind == EntryKind::Directory;
        all.push(VolumeEntry {
            path: text.to_owned(),
            mode: metadata.permissions().mode() & 0o7777,
            kind,
        });
        if is_directory {
            walk(root, &path, all)?;
        }
    }
    Ok(())
}

/// A path below the volume, of which no component leads elsewhere.
fn below(root: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let mut full = root.to_owned();
    for component in Path::new(path).components() {
        let Component::Normal(name) = component else {
            bail!("{path} does not lie in the volume");
        };
        full.push(name);
        let is_link = fs::symlink_metadata(&full).is_ok_and(|it| it.is_symlink());
        ensure!(!is_link, "{path} leads through a link");
    }
    ensure!(full != root, "the path is empty");
    Ok(full)
}

#[cfg(test)]
mod tests {
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
        fs::set_permissions(from.join("a/b"), Permissions::from_mode(0o500)).unwrap();
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
        assert!(!to.join("left").exists());
        let rest = entries(&from, Some("a/empty")).unwrap();
        assert_eq!(rest.entries, list.entries[4..], "{:?}", list.entries);
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
                kind: EntryKind::File { len: 0 },
            };
            assert!(copy.make(&entry).is_err(), "{path}");
        }
        assert_eq!(fs::read(ground.0.join("secret")).unwrap(), b"s");
    }
}
