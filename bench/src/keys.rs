//! WireGuard keys for the two ends and for any number of further peers.
//!
//! They are derived from a number: a benchmark has no secrets, and a repeated run has equal keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519::{PublicKey, StaticSecret};

#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) private: StaticSecret,
    pub(crate) public: PublicKey,
}

impl Keys {
    pub(crate) fn numbered(number: u64) -> Self {
        let mut seed = *b"ployz-bench: not a secret key...";
        seed[24..].copy_from_slice(&number.to_le_bytes());
        let private = StaticSecret::from(seed);
        Self {
            public: PublicKey::from(&private),
            private,
        }
    }

    pub(crate) fn private_base64(&self) -> String {
        STANDARD.encode(self.private.to_bytes())
    }

    pub(crate) fn public_base64(&self) -> String {
        STANDARD.encode(self.public.as_bytes())
    }
}
