//! The MACs of others' handshake messages, and the cookies that we give out for the second of them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::key::PublicKey;
use crate::message::{COOKIE_REPLY_LEN, COOKIE_REPLY_TYPE, sender_index};
use crate::secret::SecretBytes;
use crate::sources::Sources;
use crate::tunnel::mac::{MAC_LEN, MacBytes, cookie_key, is_mac, mac, mac1_key};
use crate::tunnel::transcript::Bytes32;

/// The secret behind the cookies changes every two minutes (paper, section 5.4.7), and no cookie outlives it.
const SECRET_AGE_MAX: Duration = Duration::from_secs(120);

/// A handshake message, taken apart.
pub(super) struct Signed<'a> {
    /// The bytes under the first MAC.
    body: &'a [u8],
    pub(super) mac1: &'a MacBytes,
    mac2: &'a MacBytes,
    sender_index: u32,
}

impl<'a> Signed<'a> {
    /// None if it is too short for one.
    pub(super) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (rest, mac2) = datagram.split_last_chunk()?;
        let (body, mac1) = rest.split_last_chunk()?;
        Some(Self {
            body,
            mac1,
            mac2,
            sender_index: sender_index(body)?,
        })
    }
}

/// Our side of the cookies.
pub(super) struct Cookies {
    mac1_key: Bytes32,
    cookie_key: Bytes32,
    /// None before the first load.
    secret: Option<Secret>,
}

struct Secret {
    bytes: SecretBytes,
    since: Instant,
}

impl Cookies {
    pub(super) fn new(own: &PublicKey) -> Self {
        Self {
            mac1_key: mac1_key(own),
            cookie_key: cookie_key(own),
            secret: None,
        }
    }

    /// True if the first MAC is right: the sender knows our public key.
    pub(super) fn is_signed(&self, message: &Signed<'_>) -> bool {
        is_mac(&self.mac1_key, &[message.body], message.mac1)
    }

    /// Draws another secret if it is time; true if that was so.
    pub(super) fn renew(&mut self, now: Instant, sources: &mut Sources) -> bool {
        let age = |secret: &Secret| now.saturating_duration_since(secret.since);
        let is_due = self
            .secret
            .as_ref()
            .is_none_or(|secret| age(secret) >= SECRET_AGE_MAX);
        if is_due {
            let mut bytes = SecretBytes::zero();
            (sources.random)(&mut *bytes);
            self.secret = Some(Secret { bytes, since: now });
        }
        is_due
    }

    /// True if the second MAC is right: the sender has a cookie of ours, so it receives what is sent to `from`.
    pub(super) fn is_from(&self, from: SocketAddr, message: &Signed<'_>) -> bool {
        // Without a cookie the field is zero, and nothing has to be computed to know what it is not.
        *message.mac2 != [0; MAC_LEN]
            && self
                .cookie(from)
                .is_some_and(|cookie| is_mac(&*cookie, &[message.body, message.mac1], message.mac2))
    }

    /// Writes the reply to `message`, which has a cookie for `from` in it. The first MAC is authenticated with it, so
    /// that only the sender of that very message can take it, once.
    pub(super) fn write_reply(
        &self,
        sources: &mut Sources,
        from: SocketAddr,
        message: &Signed<'_>,
        reply: &mut [u8; COOKIE_REPLY_LEN],
    ) {
        let cookie = self.cookie(from).expect("the secret was drawn before");
        let mut nonce = XNonce::default();
        (sources.random)(&mut nonce);
        reply[..4].copy_from_slice(&COOKIE_REPLY_TYPE);
        reply[4..8].copy_from_slice(&message.sender_index.to_le_bytes());
        reply[8..32].copy_from_slice(&nonce);
        reply[32..48].copy_from_slice(&*cookie);
        let tag = XChaCha20Poly1305::new((&self.cookie_key).into())
            .encrypt_in_place_detached(&nonce, message.mac1, &mut reply[32..48])
            .expect("a cookie is not too long");
        reply[48..].copy_from_slice(&tag);
    }

    /// The cookie of a source: a MAC of its address and port under the secret. None before a secret was drawn.
    fn cookie(&self, from: SocketAddr) -> Option<Zeroizing<MacBytes>> {
        let key = &*self.secret.as_ref()?.bytes;
        let port = from.port().to_be_bytes();
        Some(Zeroizing::new(match from.ip() {
            IpAddr::V4(address) => mac(key, &[&address.octets(), &port]),
            IpAddr::V6(address) => mac(key, &[&address.octets(), &port]),
        }))
    }
}
