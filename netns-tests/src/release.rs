//! Releases of the programs under test, made by `scripts/release`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use ployz_install::{Base, PublicKey, Release};

use crate::cluster::{nats_server, ployzctl};
use crate::command::run;
use crate::contender::ployzd;
use crate::stage::Stage;

/// It has 60 MB to compress, with a debug build of its own pace; the first of all installs minisign.
const PATIENCE: Duration = Duration::from_secs(180);

/// A base with one release in it, that of the programs under test.
#[derive(Debug)]
pub struct Published {
    /// Where releases lie.
    pub base: PathBuf,
    /// The public key that they are signed for.
    pub key: PathBuf,
    /// Where ployzd, ployzctl and nats-server lie side by side.
    pub programs: PathBuf,
}

impl Published {
    /// Packs, sums up and signs.
    pub fn new(stage: &Stage) -> Result<Self> {
        let programs = stage.place("programs");
        side_by_side(&programs)?;
        let key = stage.place("key");
        let published = Self {
            base: stage.place("releases"),
            key: key.with_extension("pub"),
            programs,
        };
        published.add(&published.programs)?;
        Ok(published)
    }

    /// Packs, sums up and signs the programs in a directory, of which `ployzctl` says what version they are.
    pub fn add(&self, programs: &Path) -> Result<()> {
        let key = self.key.with_extension("");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/release");
        let argv = [
            script.as_os_str(),
            "--new-key".as_ref(),
            "--key".as_ref(),
            key.as_os_str(),
            "--out".as_ref(),
            self.base.as_os_str(),
            "--programs".as_ref(),
            programs.as_os_str(),
        ];
        let argv = argv.map(|word| word.to_string_lossy().into_owned());
        run(&argv, b"", PATIENCE)?.success()?;
        Ok(())
    }

    /// The public key, in a word.
    pub fn public_key(&self) -> Result<String> {
        Ok(PublicKey::read(&self.key)?.to_string())
    }

    /// It, as whoever installs knows it.
    pub fn release(&self) -> Result<Release> {
        let base = Base::Directory(self.base.clone());
        Ok(Release::new(base, PublicKey::read(&self.key)?))
    }
}

/// Has the programs under test lie in one directory.
pub fn side_by_side(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    for program in [ployzd(), ployzctl(), nats_server()] {
        let name = program.file_name().unwrap_or_default();
        fs::copy(&program, directory.join(name))?;
    }
    Ok(())
}
