//! Reports the shard that packets to a prefix have to go to, as it changes.
//!
//! Something in front of the shards has to bring every packet from the TUN to the home of its peer, by the same
//! prefixes that the engines have. The handshake shard tells it what to change.

use ipnet::IpNet;

use crate::engine::Engine;
use crate::steer::Steer;

impl Engine {
    /// The changes by updates since the last call, each prefix once. Empty but at the handshake shard of
    /// several.
    pub fn take_steering(&mut self) -> Vec<Steer> {
        let mut moved = std::mem::take(&mut self.moved);
        moved.sort_unstable();
        moved.dedup();
        let owner = |prefix: &IpNet| self.allowed_ips.get(*prefix);
        let steer = |prefix| Steer {
            prefix,
            shard: owner(&prefix).map(|id| self.peers.get(id).home),
        };
        moved.into_iter().map(steer).collect()
    }

    /// Remembers that `prefix` was given or taken. The update bounds how often.
    pub(crate) fn note_move(&mut self, prefix: IpNet) {
        if self.shard_map.is_handshake_shard() && !self.shard_map.is_only() {
            self.moved.push(prefix);
        }
    }
}
