//! A release as `scripts/release` makes it, signed by minisign itself, comes onto a machine whole and genuine or not at
//! all.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use ployz_install::{Arch, Layout, PROGRAMS, Version};
use ployz_netns_tests::release::Published;
use ployz_netns_tests::{Backend, Outcome, Stage, netns, tell};

#[test]
fn a_release_is_installed_whole_and_genuine_or_not_at_all() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let published = Published::new(stage)?;
        let (release, arch) = (published.release()?, Arch::here()?);
        let version = release.latest()?;
        ensure!(version == Version::own(), "{version}");

        let layout = Layout::under(&stage.place("root"));
        layout.fetch(&release, &version, arch, &mut |_| ())?;
        layout.activate(&version)?;
        for program in PROGRAMS {
            let packed = fs::read(published.programs.join(program))?;
            let installed = layout.programs(&version)?.path(program);
            ensure!(fs::read(installed)? == packed, "{program}");
        }

        // Half of one program is more room than there is.
        let disk = Disk::new(stage, "8m")?;
        let full = Layout::under(&disk.0);
        let failure = full.fetch(&release, &version, arch, &mut |_| ());
        let failure = failure.err().map(|it| format!("{it} {:?}", it.hint));
        ensure!(
            failure
                .is_some_and(|it| it.contains("No space left") && it.contains("free disk space"))
        );
        is_empty(&disk.0.join("opt/ployz/versions"))?;

        let artifact = published
            .base
            .join(format!("{version}/{}", arch.artifact(&version)));
        let mut bytes = fs::read(&artifact)?;
        published.add(&published.programs)?;
        ensure!(
            fs::read(&artifact)? == bytes,
            "the same programs, other bytes"
        );
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&artifact, bytes)?;
        let other = Layout::under(&stage.place("other"));
        let failure = other.fetch(&release, &version, arch, &mut |_| ()).err();
        ensure!(failure.is_some_and(|it| it.message.contains("SHA-256")));
        ensure!(other.installed()?.is_empty() && other.current().is_none());
        Ok(())
    })
}

fn is_empty(directory: &Path) -> Outcome {
    let left: Vec<_> = fs::read_dir(directory)?
        .flatten()
        .map(|it| it.path())
        .collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// A small disk.
struct Disk(PathBuf);

impl Disk {
    fn new(stage: &Stage, size: &str) -> anyhow::Result<Self> {
        let disk = Self(stage.place("disk"));
        fs::create_dir(&disk.0)?;
        netns::host(&format!(
            "mount -t tmpfs -o size={size} tmpfs {}",
            disk.0.display()
        ))?;
        Ok(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _already_gone = netns::host(&format!("umount {}", self.0.display()));
    }
}
