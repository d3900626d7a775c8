//! The two MACs at the end of our handshake messages (paper, sections 5.4.4 and 5.4.7). The first shows that we know
//! the peer's public key; the second, with a cookie that the peer sent us under load, that we are where we seem to be.

use std::time::{Duration, Instant};

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::drops::Drop;
use crate::key::PublicKey;
use crate::message::{COOKIE_REPLY_LEN, sender_index};
use crate::tunnel::mac::{MAC_LEN, MacBytes, cookie_key, mac, mac1_key};
use crate::tunnel::transcript::Bytes32;

/// A cookie is good for two minutes from when its secret was made, less what it may take to arrive (the kernel's
/// `COOKIE_SECRET_LATENCY`).
const COOKIE_AGE_MAX: Duration = Duration::from_secs(120 - 5);

/// The MACs of our messages to one peer.
pub(super) struct Macs {
    mac1_key: Bytes32,
    cookie_key: Bytes32,
    /// Index and first MAC of the last message: a cookie is for these, once.
    sent: Option<(u32, MacBytes)>,
    cookie: Option<Box<Cookie>>,
}

struct Cookie {
    bytes: Zeroizing<MacBytes>,
    since: Instant,
}

impl Macs {
    pub(super) fn new(peer: &PublicKey) -> Self {
        Self {
            mac1_key: mac1_key(peer),
            cookie_key: cookie_key(peer),
            sent: None,
            cookie: None,
        }
    }

    /// Fills the last 32 bytes of a handshake message.
    pub(super) fn write(&mut self, now: Instant, message: &mut [u8]) {
        let mac2_at = message.len() - MAC_LEN;
        let mac1_at = mac2_at - MAC_LEN;
        let mac1 = mac(&self.mac1_key, &[&message[..mac1_at]]);
        message[mac1_at..mac2_at].copy_from_slice(&mac1);
        self.sent = sender_index(message).map(|index| (index, mac1));
        self.cookie
            .take_if(|cookie| now.saturating_duration_since(cookie.since) >= COOKIE_AGE_MAX);
        let mac2 = match &self.cookie {
            Some(cookie) => mac(&*cookie.bytes, &[&message[..mac2_at]]),
            None => [0; MAC_LEN],
        };
        message[mac2_at..].copy_from_slice(&mac2);
    }

    /// Keeps the cookie of a reply for the messages to come.
    pub(super) fn take_cookie(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Drop> {
        let message: &[u8; COOKIE_REPLY_LEN] =
            datagram.try_into().map_err(|_| Drop::MalformedMessage)?;
        let (index, mac1) = self.sent.ok_or(Drop::BadHandshake)?;
        if message[4..8] != index.to_le_bytes() {
            return Err(Drop::BadHandshake);
        }
        let mut cookie = Box::new(Cookie {
            bytes: Zeroizing::default(),
            since: now,
        });
        cookie.bytes.copy_from_slice(&message[32..48]);
        XChaCha20Poly1305::new((&self.cookie_key).into())
            .decrypt_in_place_detached(
                XNonce::from_slice(&message[8..32]),
                &mac1,
                &mut *cookie.bytes,
                message[48..].into(),
            )
            .map_err(|_| Drop::BadHandshake)?;
        self.cookie = Some(cookie);
        self.sent = None;
        Ok(())
    }
}
