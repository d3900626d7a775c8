//! The file system of a command: a mount namespace of its own with its volumes, and without the directories that are
//! none of its business.
//!
//! The launcher is root here, and what is in a volume is the workload's. So a volume is reached through a descriptor
//! that was opened before anything was mounted, and no mount point is created through a link in a volume.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::fchdir;

use crate::host::error::HostError;
use crate::workloads::error::WorkloadError;

const NOTHING: Option<&str> = None;
/// Directories of the system. A mount point that is missing there is not created: a name alone means something in some
/// of them, /etc/nologin say.
const SYSTEM: [&str; 12] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys",
    "/usr",
];

/// Mounts volumes and hides directories, for this process and those that it becomes and starts. In a sandbox, no
/// program of a volume has another user's rights, and no file of it is a device.
pub(super) fn arrange(
    volumes: &BTreeMap<PathBuf, PathBuf>,
    hidden: &[PathBuf],
    is_sandboxed: bool,
) -> Result<(), WorkloadError> {
    let root = Path::new("/");
    unshare(CloneFlags::CLONE_NEWNS).map_err(|cause| WorkloadError::Sandbox {
        action: "enter a mount namespace",
        cause,
    })?;
    // Mounts of the host appear here, and none of these there.
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(NOTHING, root, NOTHING, flags, NOTHING).map_err(failed("mount", root))?;
    let sources = volumes
        .values()
        .map(|source| open(source))
        .collect::<Result<Vec<File>, _>>()?;
    // A volume at or above one of them hides it as well.
    let is_covered = |dir: &&PathBuf| volumes.keys().any(|place| dir.starts_with(place));
    let hidden: Vec<&PathBuf> = hidden.iter().filter(|dir| !is_covered(dir)).collect();
    let hidden = hide(&hidden)?;
    let places: Vec<&Path> = volumes.keys().map(PathBuf::as_path).collect();
    for (at, source) in sources.iter().enumerate() {
        // In the order of paths: a volume within another comes after it.
        let (mounted, place) = (&places[..at], places[at]);
        make_mount_point(place, mounted, is_sandboxed)?;
        // A path of the source could lead elsewhere by now.
        fchdir(source).map_err(failed("enter", place))?;
        mount(Some("."), place, NOTHING, MsFlags::MS_BIND, NOTHING)
            .map_err(failed("mount", place))?;
        if is_sandboxed {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            remount(place, flags)?;
        }
    }
    for directory in hidden {
        remount(directory, HIDDEN | MsFlags::MS_RDONLY)?;
    }
    Ok(std::env::set_current_dir(root).map_err(HostError::file("enter", root))?)
}

const HIDDEN: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// Has directories be empty; those that there are. Volumes may still get mount points in them.
fn hide<'a>(directories: &[&'a PathBuf]) -> Result<Vec<&'a Path>, WorkloadError> {
    let mut hidden = Vec::new();
    for directory in directories {
        // One within another is gone with it.
        if directory.is_dir() {
            let data = Some("mode=755,size=64k");
            mount(Some("ployz"), *directory, Some("tmpfs"), HIDDEN, data)
                .map_err(failed("hide", directory))?;
            hidden.push(directory.as_path());
        }
    }
    Ok(hidden)
}

fn remount(place: &Path, flags: MsFlags) -> Result<(), WorkloadError> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
    mount(NOTHING, place, NOTHING, flags, NOTHING).map_err(failed("remount", place))?;
    Ok(())
}

fn open(source: &Path) -> Result<File, HostError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(source);
    opened.map_err(HostError::file("open", source))
}

/// Creates the directories of a path that are missing.
fn make_mount_point(
    place: &Path,
    mounted: &[&Path],
    is_sandboxed: bool,
) -> Result<(), WorkloadError> {
    let mut path = PathBuf::from("/");
    for component in place.components().skip(1) {
        path.push(component);
        let is_in_volume = mounted
            .iter()
            .any(|volume| path.starts_with(volume) && path != *volume);
        match fs::symlink_metadata(&path) {
            Ok(found) if is_in_volume && found.is_symlink() => {
                let path = path.display().to_string();
                return Err(WorkloadError::path(&path, "is a link of a volume"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if is_sandboxed && is_of_the_system(&path)? {
                    let path = path.display().to_string();
                    let problem =
                        "is missing: create it on the machine, or mount the volume elsewhere";
                    return Err(WorkloadError::path(&path, problem));
                }
                let made = DirBuilder::new().mode(0o755).create(&path);
                made.map_err(HostError::file("create", &path))?;
            }
            Err(error) => return Err(HostError::file("create", &path)(error).into()),
        }
    }
    Ok(())
}

/// Whether a missing path would lie in a directory of the system, by whatever links.
fn is_of_the_system(path: &Path) -> Result<bool, HostError> {
    let parent = path.parent().unwrap_or(path);
    let found = parent
        .canonicalize()
        .map_err(HostError::file("read", parent))?;
    Ok(SYSTEM.iter().any(|directory| found.starts_with(directory)))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(nix::errno::Errno) -> HostError {
    move |cause| HostError::file(action, path)(cause.into())
}
