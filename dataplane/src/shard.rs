//! A shard: an engine between a TUN and the network. Input is given to it as bytes; output collects in
//! its [`Egress`]. A driver (`uring`, `epoll`) moves the bytes.

use std::time::{Duration, Instant};

use ployz_engine::{
    Description, Drop, Drops, Ecn, Endpoint, Engine, Handoff, OuterHeader, Route, Sink, Snapshot,
    Update, UpdateError,
};

use crate::congestion::Congestion;
use crate::egress::{Egress, PacketIo};
use crate::offload::{Fragments, Segments, TooBig, too_big};
use crate::sys::message::Arrival;

/// The longest inner packet with its padding.
const SCRATCH_LEN: usize = 65_535 + 16;

/// An engine and its output; see the module.
#[derive(Debug)]
pub struct Shard<E> {
    engine: Engine,
    egress: Egress<E>,
    congestion: Congestion,
    /// Room for a packet that must be padded: behind it in the read lies the payload of the next.
    scratch: Box<[u8]>,
}

impl<E: PacketIo> Shard<E> {
    /// A shard around an engine.
    pub fn new(engine: Engine, egress: Egress<E>) -> Self {
        Self {
            engine,
            egress,
            congestion: Congestion::default(),
            scratch: vec![0; SCRATCH_LEN].into_boxed_slice(),
        }
    }

    /// Begins a turn: what is answered in it may tell when the last answer left.
    pub fn begin_turn(&mut self, now: Instant) {
        while let Some((token, at)) = self.egress.io_mut().departure(now) {
            self.engine.handle_departure(token, at);
        }
    }

    /// Takes datagrams as they came: several of one sender if GRO has joined them.
    pub fn on_datagrams(&mut self, now: Instant, arrival: &Arrival, payload: &mut [u8]) {
        let from = Endpoint {
            remote: arrival.from,
            local: arrival.received.local,
        };
        let segment_len = match arrival.received.segment_len {
            Some(len) if len > 0 => len,
            _ => payload.len(),
        };
        let single = payload.len() <= segment_len;
        let outer = OuterHeader {
            ecn: arrival.received.ecn,
            arrived: arrival.received.arrived.filter(|_| single),
        };
        let mut rest = payload;
        if !single && self.is_congested(now, arrival) {
            let (first, others) = rest.split_at_mut(segment_len);
            self.engine
                .handle_datagram(now, &from, Ecn::Ce.into(), first, &mut self.egress);
            rest = others;
        }
        self.engine
            .handle_datagrams(now, &from, outer, rest, segment_len, &mut self.egress);
    }

    /// True if the sender of these datagrams should hear that too many wait.
    fn is_congested(&mut self, now: Instant, arrival: &Arrival) -> bool {
        let io = self.egress.io();
        self.congestion.marks(now, || io.backlog(arrival.from))
    }

    /// Takes one read of the TUN: a vnet header and a packet, which may be a super-packet.
    pub fn on_tun_read(&mut self, now: Instant, read: &mut [u8]) {
        let Ok(mut segments) = Segments::from_read(read) else {
            self.engine.count_drop(Drop::MalformedPacket);
            return;
        };
        let Some(mut route) = self.engine.route(segments.super_packet()) else {
            return;
        };
        let len = segments.packet_len_max();
        let mut cut = false;
        if len > route.mtu() {
            match self.judge(segments.super_packet(), len, route.mtu()) {
                TooBig::Cut => cut = true,
                TooBig::Force => route = route.fragmented(),
                TooBig::Answer(_) | TooBig::Silent => return,
            }
        }
        while let Some(packet) = segments.next_packet() {
            if cut {
                self.send_in_fragments(now, route, packet);
            } else {
                self.send(now, route, packet);
            }
        }
    }

    #[inline]
    fn send(&mut self, now: Instant, route: Route, packet: &[u8]) {
        let padded_len = route.padded_len(packet.len());
        let padded = if padded_len == packet.len() {
            packet
        } else {
            let padded = &mut self.scratch[..padded_len];
            padded[..packet.len()].copy_from_slice(packet);
            padded[packet.len()..].fill(0);
            padded
        };
        self.engine
            .encapsulate(now, route, padded, &mut self.egress);
    }

    #[cold]
    fn send_in_fragments(&mut self, now: Instant, route: Route, packet: &[u8]) {
        let Some(mut fragments) = Fragments::new(packet, route.mtu()) else {
            self.engine.count_drop(Drop::MalformedPacket);
            return;
        };
        while let Some(len) = fragments.write_next(&mut self.scratch) {
            let padded_len = route.padded_len(len);
            self.scratch[len..padded_len].fill(0);
            let padded = &self.scratch[..padded_len];
            self.engine
                .encapsulate(now, route, padded, &mut self.egress);
        }
    }

    /// A packet does not fit through the path: if it may not be cut, its sender hears what does.
    #[cold]
    fn judge(&mut self, packet: &[u8], len: usize, mtu: usize) -> TooBig {
        let mut answer = [0; too_big::ANSWER_LEN_MAX];
        let verdict = too_big::judge(packet, len, mtu, &mut answer);
        if let TooBig::Answer(len) = verdict
            && let Err(reason) = self.egress.packet(&answer[..len])
        {
            self.engine.count_drop(reason);
        }
        if matches!(verdict, TooBig::Answer(_) | TooBig::Silent) {
            self.engine.count_drop(Drop::PacketTooBig);
        }
        verdict
    }

    /// Takes a handshake message from another shard of the interface.
    pub fn on_handoff(&mut self, now: Instant, message: &Handoff) {
        self.engine.handle_handoff(now, message, &mut self.egress);
    }

    /// Ends a turn: timers that are due, then all output is ready to be taken.
    pub fn end_turn(&mut self, now: Instant) {
        while let Some(local) = self.egress.gone_local() {
            self.engine.forget_locals(|it| it == local);
        }
        self.engine.handle_timeout(now, &mut self.egress);
        self.egress.close();
    }

    /// The time that the driver may wait for input.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        self.engine
            .poll_timeout()
            .map(|(due, _)| due.saturating_duration_since(now))
    }

    /// Applies an update whole, or not at all.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing was changed.
    pub fn apply(&mut self, now: Instant, update: &Update) -> Result<(), UpdateError> {
        self.engine.apply(now, update, &mut self.egress)
    }

    /// Everything the engine holds.
    pub fn describe(&self) -> Description {
        self.engine.describe()
    }

    /// State that changes with traffic; drops on the way out included.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.engine.snapshot();
        let mut drops = Drops::default();
        drops.merge(&snapshot.drops);
        drops.merge(self.egress.drops());
        snapshot.drops = drops;
        snapshot
    }

    /// The engine, to tell it about its surroundings.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The output.
    pub fn egress(&self) -> &Egress<E> {
        &self.egress
    }

    /// The output.
    pub fn egress_mut(&mut self) -> &mut Egress<E> {
        &mut self.egress
    }
}
