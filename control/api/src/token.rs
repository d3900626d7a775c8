//! The token of an invite: all that a machine needs to find a network, to trust it, and to be let in once.
//!
//! `ployz2.` and then, in base64 for URLs, JSON followed by the first eight bytes of its SHA-256. The checksum is for
//! people, who cut and mistype; what protects the network is the secret.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::id::{InviteId, MachineId, NetworkId};
use crate::secret::Secret;

/// 128 bits cannot be guessed.
pub const SECRET_LEN: usize = 16;

const PREFIX: &str = "ployz2.";
/// Of the version before, whose tokens name no coordinators.
const FORMER_PREFIX: &str = "ployz1.";
const CHECKSUM_LEN: usize = 8;
/// Some 400 bytes with two endpoints; a daemon has a handful of addresses.
const LEN_MAX: usize = 8 * 1024;

/// The content of a token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The network.
    pub network_id: NetworkId,
    /// SHA-256 of its CA's certificate, in hexadecimal digits.
    pub ca_fingerprint: String,
    /// The endpoints of coordinators, tried in this order.
    pub endpoints: Vec<SocketAddr>,
    /// Which invite.
    pub invite_id: InviteId,
    /// The secret of the invite, in hexadecimal digits.
    pub secret: Secret,
    /// Seconds since 1970.
    pub expires_at: u64,
    /// The machines that may answer. A token of the version before names none, and any machine of the network may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinators: Option<Coordinators>,
}

/// The machines that may let the holder of a token in, and what it has to prove to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coordinators {
    /// Those that held the store when the token was made.
    pub machines: Vec<MachineId>,
    /// The invite's X25519 public key, in base64: the joiner proves to it that it holds its own WireGuard key.
    pub proof_key: String,
    /// When the token was made, by the store's clock: no certificate may have expired before. Seconds since 1970.
    pub created_at: u64,
}

/// Text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an invite token: it is truncated or altered")]
pub struct InvalidToken;

impl Token {
    /// As one word.
    pub fn encode(&self) -> Secret {
        #[expect(clippy::expect_used, reason = "strings and numbers are always JSON")]
        let mut bytes = Zeroizing::new(serde_json::to_vec(self).expect("a token is JSON"));
        let checksum = Sha256::digest(&*bytes);
        bytes.extend_from_slice(&checksum[..CHECKSUM_LEN]);
        let prefix = match self.coordinators {
            Some(_) => PREFIX,
            None => FORMER_PREFIX,
        };
        Secret::new(format!("{prefix}{}", BASE64.encode(&*bytes)))
    }

    /// From one word.
    ///
    /// # Errors
    /// [`InvalidToken`] if a single character is missing, added or different.
    pub fn decode(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if text.len() > LEN_MAX {
            return Err(InvalidToken);
        }
        let current = text.strip_prefix(PREFIX);
        let word = current.or_else(|| text.strip_prefix(FORMER_PREFIX));
        let word = word.ok_or(InvalidToken)?;
        let bytes = Zeroizing::new(BASE64.decode(word).map_err(|_| InvalidToken)?);
        let (json, checksum) = bytes
            .split_last_chunk::<CHECKSUM_LEN>()
            .ok_or(InvalidToken)?;
        if Sha256::digest(json)[..CHECKSUM_LEN] != checksum[..] {
            return Err(InvalidToken);
        }
        let token: Self = serde_json::from_slice(json).map_err(|_| InvalidToken)?;
        if token.coordinators.is_some() != current.is_some() {
            return Err(InvalidToken);
        }
        Ok(token)
    }
}

/// The SHA-256 of something public, in hexadecimal digits.
pub fn fingerprint(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn token() -> Token {
        Token {
            network_id: NetworkId::new(1, 2),
            ca_fingerprint: fingerprint(b"ca"),
            endpoints: vec!["192.0.2.1:51821".parse().unwrap()],
            invite_id: InviteId::new(3, 4),
            secret: Secret::new("ab".repeat(SECRET_LEN)),
            expires_at: 5,
            coordinators: Some(Coordinators {
                machines: vec![MachineId::new(5, 6)],
                proof_key: "0nscWCo5g1p1G9ujcm+rwlQJSvDNqL644p4GpCpAWlI=".to_owned(),
                created_at: 4,
            }),
        }
    }

    #[test]
    fn a_token_reads_back_whole_and_only_whole() {
        let word = token().encode();
        let word = word.expose();
        let read = Token::decode(&format!(" {word}\n")).unwrap();
        assert_eq!(read.invite_id, token().invite_id);
        assert_eq!(read.secret.expose(), token().secret.expose());
        for end in 0..word.len() {
            assert!(Token::decode(&word[..end]).is_err(), "cut at {end}");
        }
        for at in 0..word.len() {
            for other in ["A", "b", "9", "_", "="] {
                if &word[at..=at] != other {
                    let mut altered = word.to_owned();
                    altered.replace_range(at..=at, other);
                    assert!(Token::decode(&altered).is_err(), "{other} at {at}");
                }
            }
        }
    }

    proptest! {
        /// Any byte changed to any other, put in, or left out, and any run of them cut out.
        #[test]
        fn an_altered_token_is_none(at in any::<Index>(), len in 1_usize..40, byte in any::<u8>(), how in 0..4) {
            let word = token().encode();
            let word = word.expose().as_bytes();
            let at = at.index(word.len());
            let mut altered = word.to_vec();
            match how {
                0 => altered[at] = byte,
                1 => altered.insert(at, byte),
                2 => drop(altered.remove(at)),
                _ => drop(altered.drain(at..word.len().min(at + len))),
            }
            let text = String::from_utf8_lossy(&altered);
            // White space around it is no part of it.
            prop_assume!(text.trim().as_bytes() != word);
            prop_assert_eq!(Token::decode(&text).err(), Some(InvalidToken));
        }

        #[test]
        fn anything_else_is_no_token_either(text in "(ployz[12]\\.)?[ -~]{0,80}") {
            prop_assert!(Token::decode(&text).is_err());
        }
    }

    #[test]
    fn a_token_does_not_show_its_secret() {
        assert!(!format!("{:?}", token()).contains("abab"));
    }
}
