//! Who this machine is: an id and three keys, made once. They never leave the data directory.

use anyhow::Context as _;
use ployz_api::{MachineId, Secret};
use ployz_engine::PrivateKey;
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::host::clock;
use crate::host::files::DataDirectory;

const FILE: &str = "identity.json";

/// As it lies on disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    machine_id: MachineId,
    /// Hexadecimal digits.
    wireguard_key: Secret,
    nkey_seed: Secret,
    /// PKCS #8.
    certificate_key_pem: Secret,
}

/// A machine's id and keys.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) machine_id: MachineId,
    pub(crate) wireguard_key: PrivateKey,
    pub(crate) nkey_seed: Secret,
    pub(crate) certificate_key_pem: Secret,
}

impl Identity {
    /// Reads it, or makes it if this is the first start.
    pub(crate) fn open(files: &DataDirectory) -> anyhow::Result<Self> {
        let saved = match files.read(FILE)? {
            Some(saved) => saved,
            None => {
                let saved = Saved::generate()?;
                files.write(FILE, &saved)?;
                saved
            }
        };
        saved.try_into()
    }

    /// One that is kept nowhere.
    #[cfg(test)]
    pub(crate) fn generate() -> anyhow::Result<Self> {
        Saved::generate()?.try_into()
    }

    /// The key that a certificate is for.
    pub(crate) fn certificate_key(&self) -> anyhow::Result<KeyPair> {
        KeyPair::from_pem(self.certificate_key_pem.expose()).context("the certificate's key")
    }

    /// How the store knows this machine.
    pub(crate) fn nkey(&self) -> anyhow::Result<String> {
        let pair = nkeys::KeyPair::from_seed(self.nkey_seed.expose()).context("the store's key")?;
        Ok(pair.public_key())
    }
}

impl Saved {
    fn generate() -> anyhow::Result<Self> {
        let (unix_ms, random) = clock::id_parts();
        let wireguard = Zeroizing::new(rand::random::<[u8; 32]>());
        Ok(Self {
            machine_id: MachineId::new(unix_ms, random),
            wireguard_key: Secret::new(hex(&*wireguard)),
            nkey_seed: Secret::new(nkeys::KeyPair::new_user().seed()?),
            certificate_key_pem: Secret::new(KeyPair::generate()?.serialize_pem()),
        })
    }
}

impl TryFrom<Saved> for Identity {
    type Error = anyhow::Error;

    fn try_from(saved: Saved) -> anyhow::Result<Self> {
        let wireguard_key = PrivateKey::from_hex(saved.wireguard_key.expose())?
            .context("identity.json has no WireGuard key")?;
        Ok(Self {
            machine_id: saved.machine_id,
            wireguard_key,
            nkey_seed: saved.nkey_seed,
            certificate_key_pem: saved.certificate_key_pem,
        })
    }
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
