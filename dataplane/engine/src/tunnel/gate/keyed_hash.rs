//! The hash that finds places in the gate's tables; no sender can compute it.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use crate::sources::Sources;

/// A hash under a secret that is mixed in before anything else. It decides about places in tables and nothing more, for
/// which SipHash in a state that no sender knows is enough.
#[derive(Clone, Copy)]
pub(super) struct KeyedHash {
    secret: [u8; 16],
}

impl KeyedHash {
    /// A hash under a new secret.
    pub(super) fn draw(sources: &mut Sources) -> Self {
        let mut secret = [0; 16];
        (sources.random)(&mut secret);
        Self { secret }
    }

    pub(super) fn of(&self, value: &impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.secret);
        value.hash(&mut hasher);
        hasher.finish()
    }
}
