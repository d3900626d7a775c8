//! The tarball: a directory `ployz-<version>` with the three programs in it, and nothing else.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use flate2::{Compression, GzBuilder};
use ployz_api::{Code, Failure};
use tar::{Archive, Builder, EntryType, Header};

use crate::files::failed;
use crate::programs::{PROGRAMS, Programs};
use crate::version::Version;

/// All three take some 60 MB; this is what a version may take that was built without stripping anything.
pub(crate) const UNPACKED_LEN_MAX: u64 = 512 << 20;

/// Writes an artifact. The same programs make the same bytes: order, time and owner say nothing about who packed them.
///
/// # Errors
///
/// `INSTALL_FAILED`: a program cannot be read, or there is no room for the artifact.
pub fn pack(programs: &Programs, version: &Version, to: impl Write) -> Result<(), Failure> {
    let gzip = GzBuilder::new().mtime(0).write(to, Compression::default());
    let mut archive = Builder::new(gzip);
    let written = |error| failed(Path::new("the artifact"))(error);
    let mut directory = header(EntryType::Directory, 0);
    archive
        .append_data(&mut directory, format!("{}/", prefix(version)), io::empty())
        .map_err(written)?;
    for program in PROGRAMS {
        let path = programs.path(program);
        let file = File::open(&path).map_err(failed(&path))?;
        let len = file.metadata().map_err(failed(&path))?.len();
        let mut header = header(EntryType::Regular, len);
        archive
            .append_data(&mut header, format!("{}/{program}", prefix(version)), file)
            .map_err(failed(&path))?;
    }
    let gzip = archive.into_inner().map_err(written)?;
    gzip.finish().and_then(|mut to| to.flush()).map_err(written)
}

/// Unpacks an artifact of this version into an empty directory, and onto the disk. Whatever is not one of the three
/// programs by its whole name, and an ordinary file, is refused: so no path leads out of the directory.
pub(crate) fn unpack(
    artifact: impl Read,
    version: &Version,
    directory: &Path,
) -> Result<Programs, Failure> {
    let plain = MultiGzDecoder::new(artifact).take(UNPACKED_LEN_MAX);
    let mut archive = Archive::new(plain);
    let damaged = |error: io::Error| refused(&format!("is damaged: {error}"));
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path_bytes().into_owned();
        let kind = entry.header().entry_type();
        if kind == EntryType::Directory && is_prefix(&path, version) {
            continue;
        }
        let program = PROGRAMS
            .into_iter()
            .find(|program| path == format!("{}/{program}", prefix(version)).as_bytes())
            .filter(|_| kind == EntryType::Regular)
            .ok_or_else(|| {
                let path = String::from_utf8_lossy(&path);
                refused(&format!(
                    "contains {path:?}, which is not one of the programs"
                ))
            })?;
        let to = directory.join(program);
        extract(&mut entry, &to).map_err(failed(&to))?;
    }
    // The checksum is at the very end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    Programs::in_directory(directory)
}

fn extract(from: &mut impl Read, to: &Path) -> io::Result<()> {
    // A second one of the same name is an error.
    let mut file = File::create_new(to)?;
    io::copy(from, &mut file)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()
}

fn refused(cause: &str) -> Failure {
    Failure::new(Code::InstallFailed, format!("the artifact {cause}"))
}

fn prefix(version: &Version) -> String {
    format!("ployz-{version}")
}

fn is_prefix(path: &[u8], version: &Version) -> bool {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path == prefix(version).as_bytes()
}

fn header(kind: EntryType, len: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(len);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{TestDirectory, programs, version};

    #[test]
    fn what_is_packed_is_unpacked_and_packed_again_to_the_same_bytes() {
        let place = TestDirectory::new();
        let original = programs(&place.path().join("here"), "1");
        let mut first = Vec::new();
        pack(&original, &version(), &mut first).unwrap();
        let there = place.directory("there");
        let copy = unpack(&first[..], &version(), &there).unwrap();
        assert!(copy.same_as(&original).unwrap());
        let mode = copy.path("ployzd").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        let mut second = Vec::new();
        pack(&copy, &version(), &mut second).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn nothing_but_the_three_programs_comes_out() {
        const DIRECTORY: &str = "ployz-0.2.0";
        for (name, kind) in [
            ("../ployzd", EntryType::Regular),
            ("/etc/passwd", EntryType::Regular),
            ("ployz-0.2.0/../../ployzd", EntryType::Regular),
            ("ployz-0.2.0/./ployzd", EntryType::Regular),
            ("ployz-0.2.0/README", EntryType::Regular),
            ("ployz-0.1.0/ployzd", EntryType::Regular),
            ("ployzd", EntryType::Regular),
            ("ployz-0.2.0/ployzd", EntryType::Symlink),
            ("ployz-0.2.0/ployzd", EntryType::Link),
            ("ployz-0.2.0/ployzd", EntryType::Fifo),
            ("ployz-0.2.0/ployzd", EntryType::Directory),
        ] {
            let place = TestDirectory::new();
            let directory = place.directory(DIRECTORY);
            let error = unpack(&archive(name, kind)[..], &version(), &directory).unwrap_err();
            assert!(
                error.message.contains("not one of the programs"),
                "{name}: {error}"
            );
            let left = std::fs::read_dir(&directory).unwrap().count();
            assert_eq!(left, 0, "{name} of {kind:?}");
            assert_eq!(place.entries(), [DIRECTORY], "{name} of {kind:?}");
        }
    }

    #[test]
    fn all_three_have_to_be_there_and_each_of_them_once() {
        let place = TestDirectory::new();
        let one = archive("ployz-0.2.0/ployzd", EntryType::Regular);
        let error = unpack(&one[..], &version(), &place.directory("one")).unwrap_err();
        assert!(error.message.contains("nats-server is not in"), "{error}");
        let twice = gzip(|tar| {
            append(tar, "ployz-0.2.0/ployzd", EntryType::Regular);
            append(tar, "ployz-0.2.0/ployzd", EntryType::Regular);
        });
        let error = unpack(&twice[..], &version(), &place.directory("twice")).unwrap_err();
        assert!(error.message.contains("File exists"), "{error}");
    }

    #[test]
    fn a_truncated_one_is_an_error_wherever_it_ends() {
        let place = TestDirectory::new();
        let mut whole = Vec::new();
        pack(
            &programs(&place.path().join("here"), "1"),
            &version(),
            &mut whole,
        )
        .unwrap();
        for len in 0..whole.len() {
            let directory = place.directory(&len.to_string());
            assert!(
                unpack(&whole[..len], &version(), &directory).is_err(),
                "{len}"
            );
        }
    }

    fn archive(name: &str, kind: EntryType) -> Vec<u8> {
        gzip(|tar| append(tar, name, kind))
    }

    fn gzip(fill: impl FnOnce(&mut Builder<&mut Vec<u8>>)) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut tar = Builder::new(&mut plain);
        fill(&mut tar);
        tar.finish().unwrap();
        drop(tar);
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::fast());
        gzip.write_all(&plain).unwrap();
        gzip.finish().unwrap()
    }

    /// With a name that `tar` itself would refuse to write.
    fn append(tar: &mut Builder<&mut Vec<u8>>, name: &str, kind: EntryType) {
        let mut header = header(kind, 0);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            gnu.linkname[..11].copy_from_slice(b"/etc/passwd");
        }
        header.set_cksum();
        tar.append(&header, io::empty()).unwrap();
    }
}
