//! A peer, and the table of all peers.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::endpoint::Endpoint;
use crate::key::{PresharedKey, PublicKey};
use crate::path::batches::{Arrivals, Batches};
use crate::path::{Limits, Path};
use crate::peer_id::PeerId;
use crate::rtt::Rtt;
use crate::shard_map::ShardMap;
use crate::sources::Sources;
use crate::staged::StagedPackets;
use crate::tunnel::Tunnel;
use crate::update::PeerSnapshot;

/// Everything about one peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) public_key: PublicKey,
    pub(crate) preshared_key: Option<PresharedKey>,
    pub(crate) endpoint: Option<Endpoint>,
    /// The same prefixes as in the engine's table, to list and to remove them.
    pub(crate) allowed_ips: BTreeSet<IpNet>,
    pub(crate) staged: StagedPackets,
    /// The shard that it is at home in.
    pub(crate) home: usize,
    /// None while the interface has no private key, if no handshake with this key can mean anything, or in a shard that
    /// the peer is not at home in.
    pub(crate) tunnel: Option<Tunnel>,
    /// 24 bits; the receiver index of a session without its low byte. The highest byte says where the peer is at home.
    pub(crate) index: u32,
    pub(crate) persistent_keepalive: Option<Duration>,
    /// The time at which an authenticated message was last sent or received.
    pub(crate) last_traversal: Instant,
    pub(crate) last_handshake: Option<Instant>,
    /// The time at which an initiation was last taken from this peer.
    pub(crate) last_initiation: Option<Instant>,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    /// Something longer than what every path takes was sent since the last tick.
    pub(crate) large_sent: bool,
    /// The path to it; none before something large was sent.
    pub(crate) path: Option<Box<Path>>,
    pub(crate) limits: Limits,
    /// The datagrams of the peer's last train that have arrived.
    pub(crate) arrivals: Arrivals,
    /// Something that was not ours was sent or received since the last tick.
    pub(crate) used: bool,
    /// The round trips to it; nothing before it had a session.
    pub(crate) rtt: Option<Box<Rtt>>,
    /// True if the engine's list of peers to tick has it.
    pub(crate) awake: bool,
}

impl Peer {
    pub(crate) fn new(public_key: PublicKey, home: usize, index: u32, now: Instant) -> Self {
        Self {
            public_key,
            preshared_key: None,
            endpoint: None,
            allowed_ips: BTreeSet::new(),
            staged: StagedPackets::default(),
            home,
            tunnel: None,
            index,
            persistent_keepalive: None,
            last_traversal: now,
            last_handshake: None,
            last_initiation: None,
            rx_bytes: 0,
            tx_bytes: 0,
            large_sent: false,
            path: None,
            limits: Limits::UNKNOWN,
            arrivals: Arrivals::default(),
            used: false,
            rtt: None,
            awake: false,
        }
    }

    /// True if a packet can be sealed for it.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        let tunnel = self.tunnel.as_ref();
        tunnel.is_some_and(|tunnel| tunnel.is_ready(now))
    }

    /// An authenticated message came from `from`: count it, and go there from now on.
    pub(crate) fn received(&mut self, now: Instant, from: &Endpoint, datagram_len: usize) {
        self.count_received(now, datagram_len);
        if self.endpoint.as_ref() != Some(from) {
            self.endpoint = Some(*from);
        }
    }

    /// An authenticated message came, and does not prove that the peer is where it came from.
    pub(crate) fn count_received(&mut self, now: Instant, datagram_len: usize) {
        self.rx_bytes += datagram_len as u64;
        self.last_traversal = now;
    }

    /// A message was sent.
    pub(crate) fn sent(&mut self, now: Instant, datagram_len: usize) {
        self.tx_bytes += datagram_len as u64;
        self.last_traversal = now;
    }

    /// The state at `now_ns` on the clock of the stamps.
    pub(crate) fn snapshot(&self, now_ns: u64) -> PeerSnapshot {
        PeerSnapshot {
            public_key: self.public_key,
            endpoint: self.endpoint.map(|endpoint| endpoint.remote),
            rx_bytes: self.rx_bytes,
            tx_bytes: self.tx_bytes,
            last_handshake: self.last_handshake,
            newest_initiation: self.tunnel.as_ref().and_then(Tunnel::newest_initiation),
            staged_packets: self.staged.len(),
            path_mtu: self.path.as_ref().and_then(|path| path.mtu()),
            batches: self
                .path
                .as_ref()
                .map_or(Batches::Untested, |path| path.batches()),
            rtt: self.rtt.as_ref().map(|rtt| rtt.snapshot(now_ns)),
        }
    }
}

/// A map without a seed, since an engine draws no randomness but from its sources. No attacker chooses the keys that
/// are in it: indices are drawn, and public keys are configured.
type PeerMap<K> = HashMap<K, PeerId, BuildHasherDefault<DefaultHasher>>;

/// Peers by id, by public key and by receiver index.
#[derive(Debug)]
pub(crate) struct Peers {
    shard_map: ShardMap,
    slots: Vec<Option<Peer>>,
    vacant: Vec<PeerId>,
    /// Ids in the order of arrival.
    order: Vec<PeerId>,
    by_key: PeerMap<PublicKey>,
    by_index: PeerMap<u32>,
}

impl Peers {
    pub(crate) fn new(shard_map: ShardMap) -> Self {
        Self {
            shard_map,
            slots: Vec::new(),
            vacant: Vec::new(),
            order: Vec::new(),
            by_key: PeerMap::default(),
            by_index: PeerMap::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Adds a peer under an index that `sources` draws and no other peer has.
    pub(crate) fn insert(
        &mut self,
        public_key: PublicKey,
        now: Instant,
        sources: &mut Sources,
    ) -> PeerId {
        let home = self.shard_map.home_of(&public_key);
        let index = self.unused_index(home, sources);
        let peer = Peer::new(public_key, home, index, now);
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            PeerId::of_slot(self.slots.len() - 1)
        });
        self.slots[id.slot()] = Some(peer);
        self.order.push(id);
        self.by_key.insert(public_key, id);
        self.by_index.insert(index, id);
        id
    }

    pub(crate) fn remove(&mut self, id: PeerId) -> Option<Peer> {
        let peer = self.slots.get_mut(id.slot())?.take()?;
        self.vacant.push(id);
        self.order.retain(|other| *other != id);
        self.by_key.remove(&peer.public_key);
        self.by_index.remove(&peer.index);
        Some(peer)
    }

    /// Gives a peer a new index, so that messages for its former sessions find no peer.
    pub(crate) fn reindex(&mut self, id: PeerId, sources: &mut Sources) {
        let index = self.unused_index(self.get(id).home, sources);
        let peer = self.get_mut(id);
        let former = std::mem::replace(&mut peer.index, index);
        self.by_index.remove(&former);
        self.by_index.insert(index, id);
    }

    pub(crate) fn get(&self, id: PeerId) -> &Peer {
        self.slots[id.slot()]
            .as_ref()
            .expect("ids are of peers that exist")
    }

    pub(crate) fn get_mut(&mut self, id: PeerId) -> &mut Peer {
        self.slots[id.slot()]
            .as_mut()
            .expect("ids are of peers that exist")
    }

    pub(crate) fn by_key(&self, public_key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(public_key).copied()
    }

    /// The peer that a receiver index belongs to, whatever the session.
    pub(crate) fn by_receiver_index(&self, receiver_index: u32) -> Option<PeerId> {
        self.by_index.get(&(receiver_index >> 8)).copied()
    }

    /// Ids in the order of arrival.
    pub(crate) fn ids(&self) -> &[PeerId] {
        &self.order
    }

    fn unused_index(&self, home: usize, sources: &mut Sources) -> u32 {
        // One in as many draws as there are shards names this home. Of those at most MAX_PEERS of 2^18 are taken, so
        // that three of four are free even if all peers share one of 64 homes.
        loop {
            let receiver_index = sources.draw_u32();
            let index = receiver_index >> 8;
            if self.shard_map.home_of_index(receiver_index) == home
                && !self.by_index.contains_key(&index)
            {
                return index;
            }
        }
    }
}
