//! The identity of this machine: an id and three keys, generated once. They never leave the data directory.

use ployz_api::{MachineId, Secret, fingerprint};
use ployz_engine::PrivateKey;
use rcgen::{KeyPair, PublicKeyData as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::host::clock;
use crate::host::error::HostError;
use crate::host::files::DataDirectory;

const FILE: &str = "identity.json";
/// The keys of that file, as failures name them.
const WIREGUARD_KEY: &str = "the WireGuard key in identity.json";
const STORE_KEY: &str = "the store's key in identity.json";
const CERTIFICATE_KEY: &str = "the certificate's key in identity.json";

/// The identity as it is stored.
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
    /// Reads the identity, or generates it at the first start.
    pub(crate) fn open(files: &DataDirectory) -> Result<Self, HostError> {
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

    /// An identity that is not stored.
    #[cfg(test)]
    pub(crate) fn generate() -> Result<Self, HostError> {
        Saved::generate()?.try_into()
    }

    /// The key that a certificate is for.
    pub(crate) fn certificate_key(&self) -> Result<KeyPair, HostError> {
        KeyPair::from_pem(self.certificate_key_pem.expose())
            .map_err(HostError::key(CERTIFICATE_KEY))
    }

    /// SHA-256 of the public half of that key, in hexadecimal digits, by which the machine's record names it.
    pub(crate) fn certificate_fingerprint(&self) -> Result<String, HostError> {
        Ok(fingerprint(self.certificate_key()?.der_bytes()))
    }

    /// Signs with the key for the store: Ed25519, 64 bytes.
    pub(crate) fn sign_for_store(&self, message: &[u8]) -> Result<Vec<u8>, HostError> {
        let pair = nkeys::KeyPair::from_seed(self.nkey_seed.expose());
        let pair = pair.map_err(HostError::key(STORE_KEY))?;
        pair.sign(message).map_err(HostError::key(STORE_KEY))
    }

    /// The public key by which the store identifies this machine.
    pub(crate) fn nkey(&self) -> Result<String, HostError> {
        let pair = nkeys::KeyPair::from_seed(self.nkey_seed.expose());
        let pair = pair.map_err(HostError::key(STORE_KEY))?;
        Ok(pair.public_key())
    }
}

impl Saved {
    fn generate() -> Result<Self, HostError> {
        let (unix_ms, random) = clock::id_parts();
        let wireguard = Zeroizing::new(rand::random::<[u8; 32]>());
        let nkey_seed = nkeys::KeyPair::new_user().seed();
        Ok(Self {
            machine_id: MachineId::new(unix_ms, random),
            wireguard_key: Secret::new(hex(&*wireguard)),
            nkey_seed: Secret::new(nkey_seed.map_err(HostError::key(STORE_KEY))?),
            certificate_key_pem: Secret::new(KeyPair::generate()?.serialize_pem()),
        })
    }
}

impl TryFrom<Saved> for Identity {
    type Error = HostError;

    fn try_from(saved: Saved) -> Result<Self, HostError> {
        let wireguard_key = PrivateKey::from_hex(saved.wireguard_key.expose())
            .map_err(HostError::key(WIREGUARD_KEY))?
            .ok_or("it is zero")
            .map_err(HostError::key(WIREGUARD_KEY))?;
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

/// The bytes of hexadecimal digits; none if there is anything else.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_one_that_is_damaged_is_not_replaced() {
        let path = std::env::temp_dir().join(format!("ployz-identity-{}", std::process::id()));
        let files = DataDirectory::open(&path).unwrap();
        let first = Identity::open(&files).unwrap();
        let again = Identity::open(&files).unwrap();
        assert_eq!(first.machine_id, again.machine_id);
        assert_eq!(first.nkey().unwrap(), again.nkey().unwrap());
        let public = |identity: &Identity| identity.wireguard_key.public_key().to_string();
        assert_eq!(public(&first), public(&again));
        assert!(first.certificate_key().is_ok());
        assert!(!format!("{first:?}").contains(first.nkey_seed.expose()));

        let saved: serde_json::Value = files.read(FILE).unwrap().unwrap();
        for (field, value, words) in [
            ("wireguard_key", "0".repeat(64), WIREGUARD_KEY),
            ("wireguard_key", "xyz".to_owned(), WIREGUARD_KEY),
            ("surplus", "1".to_owned(), "surplus"),
        ] {
            let mut damaged = saved.clone();
            damaged[field] = value.into();
            files.write(FILE, &damaged).unwrap();
            let error = Identity::open(&files).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            let kept: Option<serde_json::Value> = files.read(FILE).unwrap();
            assert_eq!(
                kept,
                Some(damaged),
                "a machine does not become another by itself"
            );
        }
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_key_of_the_store_or_of_the_certificate_that_is_none_is_named() {
        let broken = || Secret::new("none".to_owned());
        let identity = Identity {
            nkey_seed: broken(),
            certificate_key_pem: broken(),
            ..Identity::generate().unwrap()
        };
        assert!(identity.nkey().unwrap_err().to_string().contains(STORE_KEY));
        let error = identity.certificate_key().unwrap_err().to_string();
        assert!(error.contains(CERTIFICATE_KEY), "{error}");
    }
}
