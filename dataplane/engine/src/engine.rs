//! The engine's state, its clock and its answers. The way of a packet is in `egress` and `ingress`, changes in `apply`.

use std::sync::Arc;
use std::time::Instant;

use crate::allowed_ips::AllowedIps;
use crate::clock::{ReadClocks, StampClock};
use crate::drops::{Drop, Drops};
use crate::endpoint::{Endpoint, LocalAddress};
use crate::handoff::Handoffs;
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::message::HANDSHAKE_INITIATION_LEN;
use crate::packet::PacketHead;
use crate::peer::Peers;
use crate::peer_id::PeerId;
use crate::rtt::{Awaited, Bursts};
use crate::shard_map::ShardMap;
use crate::sink::{Departure, Sink};
use crate::sources::Sources;
use crate::steer::Moved;
use crate::tunnel::{Gate, Identity, TICK, Tick};
use crate::update::{Description, PeerDescription, Snapshot};

/// WireGuard for one interface, without I/O.
///
/// The driver's loop:
///
/// ```text
/// engine.apply(update)                       when something is configured
/// engine.route(packet), engine.encapsulate() for every packet from the TUN
/// engine.handle_datagram()                   for every datagram from the network
/// engine.handle_timeout(now)                 when poll_timeout() says so
/// engine.poll_handoff()                    after all of these, if other engines share the interface
/// ```
///
/// Output goes to the [`Sink`] that is passed in. Time is an argument; randomness and the wall clock are [`Sources`].
pub struct Engine {
    pub(crate) shard_map: ShardMap,
    pub(crate) sources: Sources,
    pub(crate) keys: Option<Keys>,
    pub(crate) peers: Peers,
    pub(crate) allowed_ips: AllowedIps<PeerId>,
    /// Peers that have a session, a handshake under way or a persistent keepalive.
    pub(crate) awake: Vec<PeerId>,
    pub(crate) next_tick: Option<Instant>,
    pub(crate) drops: Drops,
    pub(crate) handoffs: Handoffs,
    pub(crate) moved: Moved,
    /// The UDP port that our datagrams leave from, to recognise them inside the tunnel.
    pub(crate) listen_port: u16,
    /// No datagram is padded past the largest packet that every route through the interface takes.
    pub(crate) padding_limit: usize,
    /// The MTU of the interface; zero if it is not known, and then no path is probed.
    pub(crate) link_mtu: usize,
    /// The driver sends batches.
    pub(crate) udp_gso: bool,
    /// The answers of the last look-ups: traffic comes in runs.
    pub(crate) recent: Recent,
    /// None if the driver has no clocks to read; then no round trip is measured.
    pub(crate) stamp_clock: Option<StampClock>,
    pub(crate) awaited: Awaited,
    pub(crate) bursts: Bursts<PeerId>,
}

/// State that exists only with a private key.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) identity: Arc<Identity>,
    pub(crate) gate: Gate,
}

/// Caches of one entry in front of the tables; emptied by every change.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    pub(crate) destination: Option<(std::net::IpAddr, PeerId)>,
    pub(crate) source: Option<(std::net::IpAddr, PeerId)>,
    pub(crate) receiver_index: Option<(u32, PeerId)>,
}

impl Engine {
    /// An engine with no key and no peers.
    pub fn new(shard_map: ShardMap, sources: Sources) -> Self {
        Self {
            shard_map,
            sources,
            keys: None,
            peers: Peers::new(shard_map),
            allowed_ips: AllowedIps::new(),
            awake: Vec::new(),
            next_tick: None,
            drops: Drops::default(),
            handoffs: Handoffs::default(),
            moved: Moved::default(),
            listen_port: 0,
            padding_limit: usize::MAX,
            link_mtu: 0,
            udp_gso: false,
            recent: Recent::default(),
            stamp_clock: None,
            awaited: Awaited::default(),
            bursts: Bursts::default(),
        }
    }

    /// Tells the port that datagrams leave from.
    pub fn set_listen_port(&mut self, port: u16) {
        self.listen_port = port;
    }

    /// Tells the interface's MTU, and the smallest of it and of those of the routes through it, in bytes. No packet is
    /// longer than the first, and padding stops at the second.
    pub fn set_mtu(&mut self, link_mtu: usize, smallest_mtu: usize) {
        self.link_mtu = link_mtu;
        self.padding_limit = smallest_mtu;
    }

    /// Tells that datagrams leave in batches, which some paths mangle: then that is tested.
    pub fn set_udp_gso(&mut self, udp_gso: bool) {
        self.udp_gso = udp_gso;
    }

    /// Lends the engine the clocks that round trips are measured with: the driver has the kernel stamp what comes, and
    /// what leaves in [`SendMode::Stamped`](crate::SendMode::Stamped).
    pub fn set_clocks(&mut self, read: ReadClocks) {
        self.stamp_clock = Some(StampClock::new(read));
    }

    /// Counts something that the driver dropped before the engine saw it.
    pub fn count_drop(&mut self, reason: Drop) {
        self.drops.count(reason);
    }

    /// Some of our addresses may be no good as a source any more: answers leave from where the kernel chooses, until
    /// the peer is heard there again.
    pub fn forget_locals(&mut self, gone: impl Fn(LocalAddress) -> bool) {
        for id in self.peers.ids().to_vec() {
            if let Some(endpoint) = &mut self.peers.get_mut(id).endpoint
                && endpoint.local.is_some_and(&gone)
            {
                endpoint.local = None;
            }
        }
    }

    /// Handshake retries, rekeying, keepalives, tests, expiry. Call when [`Engine::poll_timeout`] is due.
    pub fn handle_timeout(&mut self, now: Instant, sink: &mut impl Sink) {
        self.measure_bursts(now, sink);
        if self.next_tick.is_none_or(|due| now < due) {
            return;
        }
        let mut awake = std::mem::take(&mut self.awake);
        awake.retain(|&id| self.tick_peer(now, id, sink));
        self.awake = awake;
        self.next_tick = (!self.awake.is_empty()).then(|| now + TICK);
    }

    /// The time at which [`Engine::handle_timeout`] wants to be called next, and the reason.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let tick = self
            .next_tick
            .map(|due| (due, "session and keepalive timers"));
        let burst = self
            .bursts
            .poll_timeout()
            .map(|due| (due, "a burst of tests"));
        tick.into_iter().chain(burst).min()
    }

    /// State that changes with traffic.
    pub fn snapshot(&self) -> Snapshot {
        let now_ns = self.now_ns();
        let peers = self
            .peers
            .ids()
            .iter()
            .map(|&id| self.peers.get(id).snapshot(now_ns))
            .collect();
        Snapshot {
            peers,
            drops: self.drops.clone(),
        }
    }

    /// Everything, secrets included.
    pub fn describe(&self) -> Description {
        let now_ns = self.now_ns();
        let private_key = self.keys.as_ref().map(|keys| keys.identity.private_key());
        Description {
            private_key: private_key.map(PrivateKey::copy),
            peers: self
                .peers
                .ids()
                .iter()
                .map(|&id| self.describe_peer(id, now_ns))
                .collect(),
        }
    }

    /// Our public key, once a private key is set.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.keys.as_ref().map(|keys| keys.identity.public_key())
    }

    /// On the clock of the stamps.
    fn now_ns(&self) -> u64 {
        self.stamp_clock.as_ref().map_or(0, |clock| clock.now().ns)
    }

    fn describe_peer(&self, id: PeerId, now_ns: u64) -> PeerDescription {
        let peer = self.peers.get(id);
        PeerDescription {
            state: peer.snapshot(now_ns),
            preshared_key: peer.preshared_key.as_ref().map(PresharedKey::copy),
            persistent_keepalive_secs: peer
                .persistent_keepalive
                .map_or(0, |interval| interval.as_secs() as u16),
            allowed_ips: peer.allowed_ips.iter().copied().collect(),
        }
    }

    /// Lets time pass for one peer; false if it may sleep.
    fn tick_peer(&mut self, now: Instant, id: PeerId, sink: &mut impl Sink) -> bool {
        let peer = self.peers.get_mut(id);
        let Some(tunnel) = &mut peer.tunnel else {
            peer.awake = false;
            return false;
        };
        let mut message = [0; HANDSHAKE_INITIATION_LEN];
        match tunnel.tick(now, &mut self.sources, &mut message) {
            Tick::Nothing => {}
            Tick::Send(len) => self.send_message(now, id, &message[..len], sink),
            Tick::GaveUp => {
                let lost = peer.staged.clear();
                self.drops.count_many(Drop::HandshakeTimeout, lost);
            }
            Tick::Asleep => peer.awake = peer.persistent_keepalive.is_some(),
        }
        self.keep_alive(now, id, sink);
        self.probe_path(now, id, sink);
        self.measure(now, id, sink);
        self.peers.get(id).awake
    }

    /// Persistent keepalive: after `interval` without any authenticated message, in either direction, send one.
    pub(crate) fn keep_alive(&mut self, now: Instant, id: PeerId, sink: &mut impl Sink) {
        let peer = self.peers.get_mut(id);
        let due = peer
            .persistent_keepalive
            .is_some_and(|interval| now.saturating_duration_since(peer.last_traversal) >= interval);
        if due && peer.endpoint.is_some() {
            // The next try is an interval away, even if this one fails.
            peer.last_traversal = now;
            self.send_keepalive(now, id, sink);
        }
    }

    /// Puts a peer on the list of those that want ticks.
    pub(crate) fn wake(&mut self, now: Instant, id: PeerId) {
        let peer = self.peers.get_mut(id);
        if !peer.awake {
            peer.awake = true;
            self.awake.push(id);
        }
        self.next_tick.get_or_insert(now + TICK);
    }

    /// Sends a message that was written elsewhere; handshakes and cookies are rare enough to be copied.
    pub(crate) fn send_message(
        &mut self,
        now: Instant,
        id: PeerId,
        message: &[u8],
        sink: &mut impl Sink,
    ) {
        match self.peers.get(id).endpoint {
            Some(endpoint) => self.send_message_to(now, id, &endpoint, message, sink),
            None => self.drops.count(Drop::NoEndpoint),
        }
    }

    /// The same, to where something came from.
    pub(crate) fn send_message_to(
        &mut self,
        now: Instant,
        id: PeerId,
        endpoint: &Endpoint,
        message: &[u8],
        sink: &mut impl Sink,
    ) {
        sink.datagram(message.len(), endpoint, Departure::default(), |room| {
            room.copy_from_slice(message)
        });
        self.peers.get_mut(id).sent(now, message.len());
    }

    /// The peer that may use this packet's source address.
    pub(crate) fn owner_of_source(&mut self, head: &PacketHead) -> Option<PeerId> {
        if let Some((address, id)) = self.recent.source
            && address == head.source
        {
            return Some(id);
        }
        let id = self.allowed_ips.lookup(head.source)?;
        self.recent.source = Some((head.source, id));
        Some(id)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("public_key", &self.public_key())
            .field("peers", &self.peers.len())
            .field("awake", &self.awake.len())
            .finish_non_exhaustive()
    }
}
