//! Our keys.

use x25519_dalek::StaticSecret;

use crate::key::{PrivateKey, PublicKey};

/// What all tunnels share because it is ours.
pub(crate) struct Identity {
    private_key: PrivateKey,
    secret: StaticSecret,
    public_key: PublicKey,
}

impl Identity {
    pub(crate) fn new(private_key: PrivateKey) -> Self {
        Self {
            secret: StaticSecret::from(*private_key.expose()),
            public_key: private_key.public_key(),
            private_key,
        }
    }

    pub(crate) fn private_key(&self) -> &PrivateKey {
        &self.private_key
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.public_key
    }

    pub(super) fn secret(&self) -> &StaticSecret {
        &self.secret
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.public_key)
    }
}
