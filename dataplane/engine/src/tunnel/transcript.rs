//! What both ends of a handshake compute from what they have said: the chaining key and the hash (paper, section 5.4;
//! the functions are those of the Noise framework, section 5.2).

use blake2::{Blake2s256, Digest};
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use hmac::{Mac, SimpleHmac};
use x25519_dalek::{PublicKey as Point, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use crate::drops::Drop;
use crate::secret::SecretBytes;

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const TAG_LEN: usize = 16;

/// A key, or a hash.
pub(super) type Bytes32 = [u8; 32];

/// One handshake as far as it has come.
#[derive(Clone)]
pub(super) struct Transcript {
    chaining_key: SecretBytes,
    hash: Bytes32,
}

impl Transcript {
    /// The beginning of every handshake that `responder` answers.
    pub(super) fn new(responder: &Bytes32) -> Self {
        let chaining_key = hash(&[CONSTRUCTION]);
        let prologue = hash(&[&chaining_key, IDENTIFIER]);
        Self {
            hash: hash(&[&prologue, responder]),
            chaining_key: SecretBytes::copy_of(&chaining_key),
        }
    }

    /// An ephemeral key was said.
    pub(super) fn mix_ephemeral(&mut self, key: &Bytes32) {
        self.mix_hash(key);
        self.mix_key(key);
    }

    /// A secret follows from two keys, and nothing is to be sealed with it yet.
    pub(super) fn mix_secret(&mut self, secret: &SharedSecret) {
        self.mix_key(secret.as_bytes());
    }

    /// A secret follows from two keys; the key to seal the next field with.
    pub(super) fn derive_key(&mut self, secret: &SharedSecret) -> Zeroizing<Bytes32> {
        let [chaining_key, key] = &*derive(&self.chaining_key, secret.as_bytes());
        *self.chaining_key = *chaining_key;
        Zeroizing::new(*key)
    }

    /// The preshared key, or zeros; the key to seal the next field with.
    pub(super) fn mix_preshared_key(&mut self, preshared_key: &Bytes32) -> Zeroizing<Bytes32> {
        let [chaining_key, public, key] = &*derive(&self.chaining_key, preshared_key);
        *self.chaining_key = *chaining_key;
        self.mix_hash(public);
        Zeroizing::new(*key)
    }

    /// Writes `text` to `field`, sealed; `field` is 16 bytes longer.
    pub(super) fn seal(&mut self, key: &Bytes32, text: &[u8], field: &mut [u8]) {
        let (sealed, tag) = field.split_at_mut(text.len());
        sealed.copy_from_slice(text);
        let computed = ChaCha20Poly1305::new(key.into())
            .encrypt_in_place_detached(&Nonce::default(), &self.hash, sealed)
            .expect("no field is too long for its nonce");
        tag.copy_from_slice(&computed);
        self.mix_hash(field);
    }

    /// What a field of `LEN` and 16 bytes holds.
    pub(super) fn open<const LEN: usize>(
        &mut self,
        key: &Bytes32,
        field: &[u8],
    ) -> Result<[u8; LEN], Drop> {
        assert_eq!(field.len(), LEN + TAG_LEN);
        let (sealed, tag) = field.split_at(LEN);
        let mut text = [0; LEN];
        text.copy_from_slice(sealed);
        ChaCha20Poly1305::new(key.into())
            .decrypt_in_place_detached(&Nonce::default(), &self.hash, &mut text, tag.into())
            .map_err(|_| Drop::BadHandshake)?;
        self.mix_hash(field);
        Ok(text)
    }

    /// The keys of the session: what the initiator seals with, then what the responder seals with.
    pub(super) fn split(&self) -> Zeroizing<[Bytes32; 2]> {
        derive(&self.chaining_key, &[])
    }

    /// The chaining key.
    #[cfg(test)]
    pub(super) fn secret(&self) -> &Bytes32 {
        &self.chaining_key
    }

    fn mix_hash(&mut self, said: &[u8]) {
        self.hash = hash(&[&self.hash, said]);
    }

    fn mix_key(&mut self, input: &[u8]) {
        let [chaining_key] = &*derive(&self.chaining_key, input);
        *self.chaining_key = *chaining_key;
    }
}

/// The secret of two keys. One that is zero says that the other's key has small order: everybody would know it.
pub(super) fn agree(ours: &StaticSecret, theirs: &Point) -> Result<SharedSecret, Drop> {
    let secret = ours.diffie_hellman(theirs);
    if secret.was_contributory() {
        Ok(secret)
    } else {
        Err(Drop::BadHandshake)
    }
}

pub(super) fn hash(parts: &[&[u8]]) -> Bytes32 {
    let mut hasher = Blake2s256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn hmac(key: &Bytes32, parts: &[&[u8]]) -> Bytes32 {
    let mut hmac =
        <SimpleHmac<Blake2s256> as Mac>::new_from_slice(key).expect("any length will do");
    for part in parts {
        hmac.update(part);
    }
    hmac.finalize().into_bytes().into()
}

/// The paper's `KDF_n`.
fn derive<const N: usize>(key: &Bytes32, input: &[u8]) -> Zeroizing<[Bytes32; N]> {
    let secret = Zeroizing::new(hmac(key, &[input]));
    let mut outputs = Zeroizing::new([[0; 32]; N]);
    for i in 0..N {
        let number = [i as u8 + 1];
        outputs[i] = match i.checked_sub(1) {
            None => hmac(&secret, &[&number]),
            Some(former) => hmac(&secret, &[&outputs[former], &number]),
        };
    }
    outputs
}
