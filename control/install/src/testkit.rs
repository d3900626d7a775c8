//! The needs of tests: a directory of their own, programs, and a signer.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use blake2::{Blake2b512, Digest as _};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::programs::{PROGRAMS, Programs};
use crate::signature::PublicKey;
use crate::version::Version;

/// A directory that goes with the test.
#[derive(Debug)]
pub(crate) struct TestDirectory(PathBuf);

impl TestDirectory {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ployz-install-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// The names in it, in their order.
    pub(crate) fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The version that the tests are about.
pub(crate) fn version() -> Version {
    "0.2.0".parse().unwrap()
}

/// Three programs that are told from those of another mark.
pub(crate) fn programs(directory: &Path, mark: &str) -> Programs {
    fs::create_dir_all(directory).unwrap();
    for program in PROGRAMS {
        fs::write(directory.join(program), format!("{program} of {mark}")).unwrap();
    }
    Programs::in_directory(directory).unwrap()
}

/// Signs as minisign does (<https://jedisct1.github.io/minisign/#signature-format>).
pub(crate) struct Signer(Ed25519KeyPair);

impl Signer {
    const KEY_ID: [u8; 8] = *b"ployztst";

    pub(crate) fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    pub(crate) fn key(&self) -> PublicKey {
        let parts = [b"Ed", &Self::KEY_ID[..], self.0.public_key().as_ref()];
        let text = format!(
            "untrusted comment: key\n{}\n",
            BASE64.encode(parts.concat())
        );
        text.parse().unwrap()
    }

    pub(crate) fn sign(&self, content: &[u8], comment: &str) -> String {
        let signature = self.0.sign(&Blake2b512::digest(content));
        let signature = signature.as_ref();
        let parts = [b"ED", &Self::KEY_ID[..], signature];
        let global = self.0.sign(&[signature, comment.as_bytes()].concat());
        format!(
            "untrusted comment: x\n{}\ntrusted comment: {comment}\n{}\n",
            BASE64.encode(parts.concat()),
            BASE64.encode(global.as_ref())
        )
    }
}
