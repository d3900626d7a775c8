//! Handshake messages as an attacker makes them: with a valid first MAC, and no private key.
//!
//! The first MAC is keyed with the responder's public key, which is no secret. Everything behind it is
//! noise, unless the attacker claims a low-order public key: every Diffie-Hellman with it yields zeros, so
//! that the whole initiation can be computed by anybody.

use blake2::digest::consts::U16;
use blake2::digest::{Digest, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce, XChaCha20Poly1305, XNonce};
use hmac::SimpleHmac;

pub const INITIATION_BYTES: usize = 148;

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";

/// Where the MACs begin: behind type, sender, ephemeral, encrypted static key and timestamp.
const MACS: usize = 116;

/// The points of order 1, 2, 4 and 8 and their non-canonical forms, as the kernel's selftest lists them.
pub const LOW_ORDER_POINTS: [&str; 7] = [
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA=",
    "X5yVvKNQjCSx0LFVnIPvWwREXMRYHI6G2CJO3dCfEVc=",
    "7P///////////////////////////////////////38=",
    "7f///////////////////////////////////////38=",
    "7v///////////////////////////////////////38=",
];

/// An initiation of noise that `responder` cannot tell from a real one before it does the expensive part.
#[must_use]
pub fn noise_initiation(responder: &[u8; 32], noise: &mut Noise) -> [u8; INITIATION_BYTES] {
    let mut message = [0; INITIATION_BYTES];
    noise.fill(&mut message[4..MACS]);
    message[0] = 1;
    seal_mac1(&mut message, &mac1_key(responder));
    message
}

/// Makes another message of one for the owner of `key`, for as little as that can cost.
pub fn renew(message: &mut [u8; INITIATION_BYTES], key: &[u8; 32], noise: &mut Noise) {
    noise.fill(&mut message[4..12]);
    seal_mac1(message, key);
}

/// The key of the first MAC of messages to `responder`.
#[must_use]
pub fn mac1_key(responder: &[u8; 32]) -> [u8; 32] {
    hash(&[LABEL_MAC1, responder])
}

/// What a peer with the low-order key `point` would send, ephemeral key included.
#[must_use]
pub fn low_order_initiation(responder: &[u8; 32], point: &[u8; 32]) -> [u8; INITIATION_BYTES] {
    /// Later than any timestamp that a responder has seen: the year 2106, as TAI64N.
    const TIMESTAMP: [u8; 12] = [0x40, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    const ZEROS: [u8; 32] = [0; 32];

    let chaining = hash(&[CONSTRUCTION]);
    let transcript = hash(&[&hash(&[&chaining, IDENTIFIER]), responder]);
    let transcript = hash(&[&transcript, point]);
    let (chaining, _) = derive(&chaining, point);
    let (chaining, key) = derive(&chaining, &ZEROS);
    let sealed_static = seal(&key, point, &transcript);
    let transcript = hash(&[&transcript, &sealed_static]);
    let (_, key) = derive(&chaining, &ZEROS);
    let sealed_timestamp = seal(&key, &TIMESTAMP, &transcript);

    let mut message = [0; INITIATION_BYTES];
    message[0] = 1;
    message[4..8].copy_from_slice(&0x1234_5678_u32.to_le_bytes());
    message[8..40].copy_from_slice(point);
    message[40..88].copy_from_slice(&sealed_static);
    message[88..MACS].copy_from_slice(&sealed_timestamp);
    seal_mac1(&mut message, &mac1_key(responder));
    message
}

/// The cookie in a reply of `responder` to the message with this first MAC.
#[must_use]
pub fn open_cookie(responder: &[u8; 32], mac1: &[u8], reply: &[u8]) -> Option<[u8; 16]> {
    let key = hash(&[LABEL_COOKIE, responder]);
    let payload = Payload {
        msg: reply.get(32..64)?,
        aad: mac1,
    };
    let nonce = XNonce::from_slice(reply.get(8..32)?);
    let cookie = XChaCha20Poly1305::new(Key::from_slice(&key)).decrypt(nonce, payload);
    cookie.ok()?.try_into().ok()
}

/// Writes the second MAC, which shows that the sender has the cookie.
pub fn seal_mac2(message: &mut [u8; INITIATION_BYTES], cookie: &[u8; 16]) {
    const MAC2: usize = MACS + 16;
    let mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(cookie);
    let mac = mac
        .expect("16 bytes are a key")
        .chain_update(&message[..MAC2])
        .finalize();
    message[MAC2..].copy_from_slice(&mac.into_bytes());
}

/// The first MAC of a message.
#[must_use]
pub fn mac1(message: &[u8; INITIATION_BYTES]) -> &[u8] {
    &message[MACS..MACS + 16]
}

fn seal_mac1(message: &mut [u8; INITIATION_BYTES], key: &[u8; 32]) {
    let mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key);
    let mac = mac
        .expect("32 bytes are a key")
        .chain_update(&message[..MACS])
        .finalize();
    message[MACS..MACS + 16].copy_from_slice(&mac.into_bytes());
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Blake2s256::new();
    parts
        .iter()
        .for_each(|part| Digest::update(&mut hasher, part));
    hasher.finalize().into()
}

/// The first two outputs of HKDF: the next chaining key and a key to seal with.
fn derive(chaining: &[u8; 32], input: &[u8; 32]) -> ([u8; 32], [u8; 32]) {
    let secret = hmac(chaining, &[input]);
    let first = hmac(&secret, &[&[1]]);
    (first, hmac(&secret, &[&first, &[2]]))
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mac = <SimpleHmac<Blake2s256> as KeyInit>::new_from_slice(key);
    let mut mac = mac.expect("any length is a key");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn seal(key: &[u8; 32], plaintext: &[u8], transcript: &[u8]) -> Vec<u8> {
    let payload = Payload {
        msg: plaintext,
        aad: transcript,
    };
    let cipher = ChaCha20Poly1305::new(Key::from_slice(key));
    cipher
        .encrypt(&Nonce::default(), payload)
        .expect("a short message can be sealed")
}

/// Numbers that look random and are the same on every run (xorshift64*).
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        // Zero is the one state that it never leaves.
        Self(seed | 1)
    }

    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        usize::try_from(self.word() % bound).unwrap_or(0)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.word().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}
