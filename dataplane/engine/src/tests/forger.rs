//! Handshake messages that are nothing but their MACs, from a sender that knows a public key and no more.

use blake2::digest::Mac;
use blake2::digest::consts::U16;
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use chacha20poly1305::aead::{AeadInPlace as _, KeyInit as _};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::PublicKey;

/// A sender of initiations to one receiver: an attacker, or a stand-in for a peer as far as a gate can see.
pub(crate) struct Forger {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    number: u32,
    mac1: [u8; 16],
    /// None sends no second MAC.
    pub(crate) cookie: Option<[u8; 16]>,
}

impl Forger {
    /// Forgers of different numbers send different messages.
    pub(crate) fn new(receiver: &PublicKey, number: u8) -> Self {
        let key = |label: &[u8]| {
            let hash = Blake2s256::new().chain_update(label);
            hash.chain_update(receiver.as_bytes()).finalize().into()
        };
        Self {
            mac1_key: key(b"mac1----"),
            cookie_key: key(b"cookie--"),
            number: u32::from(number) << 24,
            mac1: [0; 16],
            cookie: None,
        }
    }

    /// Another initiation.
    pub(crate) fn message(&mut self) -> Vec<u8> {
        self.number += 1;
        let mut message = vec![9; 148];
        message[..4].copy_from_slice(&[1, 0, 0, 0]);
        message[4..8].copy_from_slice(&self.number.to_le_bytes());
        self.mac1 = mac(&self.mac1_key, &message[..116]);
        message[116..132].copy_from_slice(&self.mac1);
        let mac2 = self.cookie.map(|cookie| mac(&cookie, &message[..132]));
        message[132..].copy_from_slice(&mac2.unwrap_or_default());
        message
    }

    /// Takes the cookie in a reply; false if the reply is not to the last message.
    pub(crate) fn take(&mut self, reply: &[u8]) -> bool {
        let mut cookie: [u8; 16] = reply[32..48].try_into().unwrap();
        let opened = XChaCha20Poly1305::new((&self.cookie_key).into()).decrypt_in_place_detached(
            XNonce::from_slice(&reply[8..32]),
            &self.mac1,
            &mut cookie,
            reply[48..64].into(),
        );
        let is_ours = opened.is_ok() && reply[4..8] == self.number.to_le_bytes();
        self.cookie = if is_ours { Some(cookie) } else { self.cookie };
        is_ours
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 16] {
    let mac = <Blake2sMac<U16> as Mac>::new_from_slice(key).unwrap();
    mac.chain_update(message).finalize().into_bytes().into()
}
