//! The users that commands run as, and what belongs to them.
//!
//! A user follows from the workload's name: so it is the same after a removal and on every machine, and what a volume
//! holds moves without a change of owner. No user database has these users.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

use ployz_api::WorkloadName;
use sha2::{Digest as _, Sha256};

use crate::host::error::HostError;

/// systemd leaves 0x7000_0000 to 0x7fff_ffff (but for some above 0x7ffd_ffff) to nobody: they are above the users of
/// hosts, of services with dynamic users, and of containers. Of 256 workloads, the most that a machine holds, two have
/// the same user with a probability of 256 * 255 / 2 / 2^27, one in 4,000.
const FIRST: u32 = 0x7000_0000;
const MASK: u32 = 0x07ff_ffff;

/// The user, and the group of the same number, that a workload runs as.
pub(super) fn user_of(workload: &WorkloadName) -> u32 {
    let digest = Sha256::digest(format!("ployz workload {workload}"));
    let number = digest.iter().take(4).fold(0, |number: u32, byte| {
        number.wrapping_shl(8) | u32::from(*byte)
    });
    FIRST | (number & MASK)
}

/// Whether what is in a volume has to be given to this user first: its directory says so.
pub(super) fn is_anothers(volume: &Path, user: u32) -> Result<bool, HostError> {
    let found = fs::symlink_metadata(volume).map_err(HostError::file("read", volume))?;
    Ok((found.uid(), found.gid()) != (user, user))
}

/// Gives a volume to a user, with all that is in it; the directory itself comes last, so that an interrupted call is
/// repeated. A file with further names outside of the volume stays what it is: it is not the volume's alone.
pub(super) fn give(volume: &Path, user: u32) -> Result<(), HostError> {
    let mut files = Vec::new();
    find(volume, &mut files)?;
    let mut names: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for file in &files {
        *names.entry(file.inode).or_default() += 1;
    }
    // The content of a directory before the directory.
    for file in files.iter().rev() {
        let is_shared = !file.is_directory && names.get(&file.inode) != Some(&file.links);
        if is_shared {
            let path = file.path.display();
            tracing::warn!(%path, "a file with names outside of its volume keeps its owner");
            continue;
        }
        lchown(&file.path, Some(user), Some(user))
            .map_err(HostError::file("change the owner of", &file.path))?;
    }
    Ok(())
}

/// Takes a volume's directory back to root, so that all of it is given to its user once that runs it again.
pub(super) fn take_back(volume: &Path, user: u32) -> Result<(), HostError> {
    if is_anothers(volume, user)? {
        return Ok(());
    }
    lchown(volume, Some(0), Some(0)).map_err(HostError::file("change the owner of", volume))
}

#[derive(Debug)]
struct Found {
    path: PathBuf,
    inode: (u64, u64),
    links: u64,
    is_directory: bool,
}

/// Lists a directory and what is below it, on the same file system. Only directories tell: files of an overlay may be
/// on another device than their directory.
fn find(path: &Path, files: &mut Vec<Found>) -> Result<(), HostError> {
    let failed = |error: io::Error| HostError::file("read", path)(error);
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    let inode = (metadata.dev(), metadata.ino());
    let is_mount = files.first().is_some_and(|root| root.inode.0 != inode.0);
    if is_mount && metadata.is_dir() {
        return Ok(());
    }
    files.push(Found {
        path: path.to_owned(),
        inode,
        links: metadata.nlink(),
        is_directory: metadata.is_dir(),
    });
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(failed)? {
            find(&entry.map_err(failed)?.path(), files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> u32 {
        user_of(&name.parse().unwrap())
    }

    #[test]
    fn a_user_follows_from_the_name_and_is_no_other_programs() {
        assert_eq!(user("web"), user("default/web"));
        assert_ne!(user("web"), user("shop/web"));
        assert_ne!(user("web"), user("db"));
        for number in 0..1_000 {
            let user = user(&format!("w{number}"));
            assert!((0x7000_0000..0x7800_0000).contains(&user), "{user:x}");
        }
        // Volumes on disks belong to it: it must not become another one.
        assert_eq!(user("default/web"), 1_933_855_014);
    }

    #[test]
    fn files_that_are_not_the_volumes_alone_are_found_out() {
        let ground = std::env::temp_dir().join(format!("ployz-users-{}", std::process::id()));
        let volume = ground.join("volume");
        fs::create_dir_all(volume.join("deep")).unwrap();
        for file in ["volume/one", "volume/deep/two", "outside"] {
            fs::write(ground.join(file), "").unwrap();
        }
        fs::hard_link(volume.join("one"), volume.join("deep/again")).unwrap();
        fs::hard_link(ground.join("outside"), volume.join("shared")).unwrap();
        std::os::unix::fs::symlink(&ground, volume.join("link")).unwrap();
        let mut files = Vec::new();
        find(&volume, &mut files).unwrap();
        let mut paths: Vec<_> = files
            .iter()
            .map(|it| it.path.strip_prefix(&volume).unwrap().to_owned())
            .collect();
        paths.sort();
        let expected = [
            "",
            "deep",
            "deep/again",
            "deep/two",
            "link",
            "one",
            "shared",
        ];
        assert_eq!(paths, expected.map(PathBuf::from));
        let own = nix::unistd::getuid().as_raw();
        let is_own = is_anothers(&volume, own).is_ok_and(|is_anothers| !is_anothers);
        assert_eq!(is_own, nix::unistd::getgid().as_raw() == own);
        fs::remove_dir_all(ground).unwrap();
    }
}
