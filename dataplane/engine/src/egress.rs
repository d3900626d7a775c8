//! From the TUN to the network.

use std::time::Instant;

use crate::drops::Drop;
use crate::ecn::Ecn;
use crate::engine::Engine;
use crate::message::{DATA_OVERHEAD_LEN, HANDSHAKE_INITIATION_LEN};
use crate::packet::PacketHead;
use crate::path::LARGE_LEN;
use crate::peer_id::PeerId;
use crate::probe;
use crate::sink::{Departure, SendMode, Sink};

/// Data messages carry a multiple of this many bytes (paper, section 5.4.6), so that lengths tell less.
pub const PADDING_MULTIPLE: usize = 16;

/// The way of the packets of one TUN read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    peer: PeerId,
    departure: Departure,
    mtu: usize,
    padding_limit: usize,
}

impl Route {
    /// The longest packet, in bytes, that reaches the peer whole.
    pub const fn mtu(&self) -> usize {
        self.mtu
    }

    /// The same way for packets that are longer than that: they leave in fragments.
    #[must_use]
    pub const fn fragmented(mut self) -> Self {
        self.departure.mode = SendMode::Fragmented;
        self
    }

    /// The length to which a packet of `len` bytes is padded with zeros: a multiple of 16, but never past what the
    /// route takes, because padding must not cause fragmentation. At most 15 more than `len`.
    pub fn padded_len(&self, len: usize) -> usize {
        len.next_multiple_of(PADDING_MULTIPLE)
            .min(self.padding_limit)
            .max(len)
    }
}

impl Engine {
    /// Finds the peer for a packet from the TUN, by destination. All segments of one read share the answer.
    pub fn route(&mut self, packet: &[u8]) -> Option<Route> {
        let Some(head) = PacketHead::parse(packet) else {
            self.drops.count(Drop::MalformedPacket);
            return None;
        };
        if probe::is_reserved(head.source) {
            self.drops.count(Drop::NoPeer);
            return None;
        }
        let id = match self.recent.destination {
            Some((address, id)) if address == head.destination => id,
            _ => {
                let Some(id) = self.allowed_ips.lookup(head.destination) else {
                    self.drops.count(Drop::NoPeer);
                    return None;
                };
                self.recent.destination = Some((head.destination, id));
                id
            }
        };
        let peer = self.peers.get(id);
        if peer.home != self.shard_map.shard() {
            self.drops.count(Drop::WrongShard);
            return None;
        }
        if peer
            .endpoint
            .is_some_and(|to| head.is_datagram_to(packet, self.listen_port, to.remote))
        {
            self.drops.count(Drop::RoutingLoop);
            return None;
        }
        let limits = peer.limits;
        Some(Route {
            peer: id,
            // The outer header says what the inner one says (RFC 6040, section 4.1).
            departure: limits.departure(head.ecn),
            mtu: limits.inner_mtu,
            padding_limit: self.padding_limit.min(limits.inner_mtu),
        })
    }

    /// Encrypts a padded packet for its peer, or keeps it while a handshake runs.
    pub fn encapsulate(&mut self, now: Instant, route: Route, packet: &[u8], sink: &mut impl Sink) {
        let peer = self.peers.get_mut(route.peer);
        let Some(endpoint) = &peer.endpoint else {
            self.drops.count(Drop::NoEndpoint);
            return;
        };
        match &mut peer.tunnel {
            None => self.drops.count(Drop::NoKey),
            Some(tunnel) if tunnel.is_ready(now) => {
                let datagram_len = packet.len() + DATA_OVERHEAD_LEN;
                sink.message(datagram_len, endpoint, route.departure, move |room| {
                    tunnel.next_message(now, packet, room)
                });
                peer.large_sent |= datagram_len >= LARGE_LEN;
                peer.used = true;
                peer.sent(now, datagram_len);
            }
            Some(_) => {
                if peer.staged.push(packet) {
                    self.drops.count(Drop::StagedOverflow);
                }
                self.initiate(now, route.peer, sink);
            }
        }
    }

    /// Starts a handshake, now or as soon as there may be another.
    pub(crate) fn initiate(&mut self, now: Instant, id: PeerId, sink: &mut impl Sink) {
        let mut message = [0; HANDSHAKE_INITIATION_LEN];
        let Some(tunnel) = &mut self.peers.get_mut(id).tunnel else {
            return;
        };
        if tunnel.initiate(now, &mut self.sources, &mut message) {
            self.send_message(now, id, &message, sink);
        }
        self.wake(now, id);
    }

    /// Sends an empty data message, or starts the handshake that is missing for it.
    pub(crate) fn send_keepalive(&mut self, now: Instant, id: PeerId, sink: &mut impl Sink) {
        let Some(tunnel) = &mut self.peers.get_mut(id).tunnel else {
            return;
        };
        if !tunnel.is_ready(now) {
            self.initiate(now, id, sink);
            return;
        }
        let mut message = [0; DATA_OVERHEAD_LEN];
        tunnel.seal(now, &[], &mut message);
        self.send_message(now, id, &message, sink);
    }

    /// Sends what waited for a session, if there is one now; false if there was nothing to send.
    pub(crate) fn flush_staged(&mut self, now: Instant, id: PeerId, sink: &mut impl Sink) -> bool {
        let peer = self.peers.get_mut(id);
        let (Some(tunnel), Some(endpoint)) = (&mut peer.tunnel, peer.endpoint) else {
            return false;
        };
        let mut flushed = false;
        while tunnel.is_ready(now)
            && let Some(packet) = peer.staged.pop()
        {
            let ecn = PacketHead::parse(&packet).map_or(Ecn::NotEct, |head| head.ecn);
            let len = packet.len() + DATA_OVERHEAD_LEN;
            sink.datagram(len, &endpoint, peer.limits.departure(ecn), |room| {
                tunnel.seal(now, &packet, room)
            });
            peer.large_sent |= len >= LARGE_LEN;
            peer.tx_bytes += len as u64;
            peer.last_traversal = now;
            flushed = true;
        }
        flushed
    }
}
