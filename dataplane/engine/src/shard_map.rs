//! The spread of an interface's peers over its engines, as one of the engines sees it.
//!
//! Every engine of an interface knows every peer and every prefix, but only the home of a peer has a tunnel with it.
//! The home follows from the peer's public key. The receiver indices of the peer's sessions name the home in their
//! highest byte, so that a data message can be steered before anything is looked up.

use crate::key::PublicKey;

/// Engines per interface: of the 256 values of an index's highest byte at least four are left for each.
pub const SHARDS_MAX: usize = 64;

/// The shard that takes handshake messages from the network, for all shards.
const HANDSHAKE_SHARD: usize = 0;

/// The shard of one engine, and the homes of all peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardMap {
    shard: usize,
    shards: usize,
}

impl ShardMap {
    /// The map of an engine that has the interface for itself.
    pub const ONLY: Self = Self {
        shard: 0,
        shards: 1,
    };

    /// The maps of all engines of an interface with so many shards: from 1 to [`SHARDS_MAX`].
    pub fn all(shards: usize) -> impl Iterator<Item = Self> {
        assert!((1..=SHARDS_MAX).contains(&shards));
        (0..shards).map(move |shard| Self { shard, shards })
    }

    /// The number of this shard, counted from 0.
    pub const fn shard(self) -> usize {
        self.shard
    }

    /// True for the shard that handshake messages come to.
    pub const fn is_handshake_shard(self) -> bool {
        self.shard == HANDSHAKE_SHARD
    }

    /// The shard that has the sessions of this peer. The low bytes of a point are as good as random.
    pub fn home_of(self, public_key: &PublicKey) -> usize {
        let [a, b, c, d, ..] = *public_key.as_bytes();
        u32::from_le_bytes([a, b, c, d]) as usize % self.shards
    }

    /// The shard that handshake messages come to.
    pub(crate) const fn handshake_shard(self) -> usize {
        HANDSHAKE_SHARD
    }

    /// True if no other engine shares the interface.
    pub(crate) const fn is_only(self) -> bool {
        self.shards == 1
    }

    /// The shard whose peers have this receiver index. The steering of the sockets computes the same from the datagram.
    pub(crate) const fn home_of_index(self, receiver_index: u32) -> usize {
        (receiver_index >> 24) as usize % self.shards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_only_engine_is_home_to_all() {
        let map = ShardMap::ONLY;
        assert!(map.is_handshake_shard() && map.is_only());
        for byte in [0, 1, 0x7f, 0xff] {
            assert_eq!(map.home_of(&PublicKey::from_bytes([byte; 32])), 0);
            assert_eq!(map.home_of_index(u32::from(byte) << 24), 0);
        }
    }

    #[test]
    fn all_shards_agree_on_every_home_and_none_is_without_an_index() {
        for shards in [2, 3, 64] {
            let key = PublicKey::from_bytes([0xa7; 32]);
            let mut homes: Vec<usize> = ShardMap::all(shards).map(|at| at.home_of(&key)).collect();
            homes.dedup();
            assert_eq!(homes.len(), 1);
            let here = ShardMap::all(shards).next().unwrap();
            for home in 0..shards {
                let bytes = (0..=0xffu32).filter(|byte| here.home_of_index(byte << 24) == home);
                assert!(bytes.count() >= 4);
            }
        }
    }
}
