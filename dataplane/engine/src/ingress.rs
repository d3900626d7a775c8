//! From the network to the TUN.

use std::time::{Duration, Instant};

use ployz_aead::{GROUP_LEN_MAX, TAG_LEN};

use crate::drops::Drop;
use crate::ecn::Ecn;
use crate::endpoint::Endpoint;
use crate::engine::Engine;
use crate::handoff::HandoffKind;
use crate::message::{
    COOKIE_REPLY_LEN, DATA_HEADER_LEN, DATA_OVERHEAD_LEN, HANDSHAKE_RESPONSE_LEN, Message,
    data_counter,
};
use crate::outer_header::OuterHeader;
use crate::packet::{PacketHead, packet_len};
use crate::peer_id::PeerId;
use crate::probe::Probe;
use crate::sealing::in_place;
use crate::sink::{Departure, Sink};
use crate::tunnel::{Admission, Claim, Freshness};

/// An initiation costs us four scalar multiplications: from one peer, at most this often (the kernel's
/// `INITIATIONS_PER_SECOND` is 50).
const INITIATION_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// The arrival of data messages.
struct Arrived<'a> {
    now: Instant,
    from: &'a Endpoint,
    outer: OuterHeader,
    receiver_index: u32,
}

impl Engine {
    /// Takes one datagram that came from `from` in the packet `outer`. A packet in it is decrypted where it is.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: &Endpoint,
        outer: OuterHeader,
        datagram: &mut [u8],
        sink: &mut impl Sink,
    ) {
        self.handle_datagrams(now, from, outer, datagram, datagram.len(), sink);
    }

    /// The same for several that stand end to end, all of `datagram_len` bytes but perhaps the last.
    pub fn handle_datagrams(
        &mut self,
        now: Instant,
        from: &Endpoint,
        outer: OuterHeader,
        datagrams: &mut [u8],
        datagram_len: usize,
        sink: &mut impl Sink,
    ) {
        if datagrams.is_empty() {
            self.drops.count(Drop::MalformedMessage);
        }
        let mut rest = datagrams;
        while !rest.is_empty() {
            let (message, count) = leading_messages(rest, datagram_len);
            let (alike, others) = rest.split_at_mut(rest.len().min(count * datagram_len));
            rest = others;
            if let Some(Message::Data { receiver_index, .. }) = message {
                let way = Arrived {
                    now,
                    from,
                    outer,
                    receiver_index,
                };
                if let Err(reason) = self.handle_data(&way, alike, datagram_len, sink) {
                    self.drops.count_many(reason, count);
                }
            } else if let Err(reason) = self.handle_handshake(now, from, message, alike, sink) {
                self.drops.count(reason);
            }
        }
    }

    /// Takes anything but data.
    pub(crate) fn handle_handshake(
        &mut self,
        now: Instant,
        from: &Endpoint,
        message: Option<Message>,
        datagram: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        match message {
            // One shard admits them all.
            Some(Message::HandshakeInitiation | Message::HandshakeResponse { .. })
                if !self.shard_map.is_handshake_shard() =>
            {
                let admitting = self.shard_map.handshake_shard();
                self.hand_off(admitting, HandoffKind::Admission, from, datagram)
            }
            Some(Message::HandshakeInitiation) => self.handle_initiation(now, from, datagram, sink),
            Some(Message::HandshakeResponse { receiver_index }) => {
                self.handle_response(now, from, receiver_index, datagram, sink)
            }
            Some(Message::CookieReply { receiver_index }) => {
                self.handle_cookie_reply(now, receiver_index, datagram)
            }
            Some(Message::Data { .. }) | None => Err(Drop::MalformedMessage),
        }
    }

    /// Takes up to [`GROUP_LEN_MAX`] data messages of one session.
    ///
    /// # Errors
    /// The fault that all of them have; a fault of one is counted.
    fn handle_data(
        &mut self,
        way: &Arrived<'_>,
        messages: &mut [u8],
        message_len: usize,
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        let id = self.peer_of_session(way.receiver_index)?;
        let tunnel = self.peers.get(id).tunnel.as_ref();
        let key = tunnel
            .ok_or(Drop::UnknownSession)?
            .receiving_key(way.now, way.receiver_index)?;
        let count = messages.len().div_ceil(message_len);
        let authentic = key.open(&mut in_place(messages, message_len)[..count]);
        for (index, message) in messages.chunks_mut(message_len).enumerate() {
            let outcome = match authentic.contains(index) {
                true => self.take_authentic(way, id, message, sink),
                false => Err(Drop::BadTag),
            };
            if let Err(reason) = outcome {
                self.drops.count(reason);
            }
        }
        Ok(())
    }

    /// Takes a data message that was authenticated and decrypted.
    fn take_authentic(
        &mut self,
        way: &Arrived<'_>,
        id: PeerId,
        message: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        let now = way.now;
        let peer = self.peers.get_mut(id);
        let tunnel = peer.tunnel.as_mut().ok_or(Drop::UnknownSession)?;
        let was_ready = tunnel.is_ready(now);
        let counter = data_counter(message).ok_or(Drop::MalformedMessage)?;
        let text_len = message.len() - DATA_OVERHEAD_LEN;
        if tunnel.accept(now, way.receiver_index, counter, text_len)? {
            peer.last_handshake = Some(now);
        }
        peer.received(now, way.from, message.len());
        let delivery = self.deliver(way, id, message, sink);
        if !was_ready {
            self.flush_staged(now, id, sink);
        }
        delivery
    }

    /// Passes on what was in a data message.
    fn deliver(
        &mut self,
        way: &Arrived<'_>,
        id: PeerId,
        message: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        let datagram_len = message.len();
        let padded = &mut message[DATA_HEADER_LEN..datagram_len - TAG_LEN];
        if padded.is_empty() {
            return Ok(());
        }
        let len = packet_len(padded).ok_or(Drop::MalformedPacket)?;
        let packet = &mut padded[..len];
        if let Some(probe) = Probe::parse(packet) {
            self.handle_probe(way.now, id, probe, datagram_len, way.outer, sink);
            return Ok(());
        }
        self.check_inner(id, way.outer.ecn, packet)?;
        sink.packet(packet)
    }

    /// The packet is from whom it says, and feels the congestion that the datagram met.
    fn check_inner(&mut self, id: PeerId, outer: Ecn, packet: &mut [u8]) -> Result<(), Drop> {
        let head = PacketHead::parse(packet).ok_or(Drop::MalformedPacket)?;
        if self.owner_of_source(&head) != Some(id) {
            return Err(Drop::Spoof);
        }
        self.peers.get_mut(id).used = true;
        if outer != head.ecn {
            let combined = Ecn::decapsulate(head.ecn, outer).ok_or(Drop::EcnCongestion)?;
            if combined != head.ecn {
                combined.write(packet);
            }
        }
        Ok(())
    }

    fn handle_initiation(
        &mut self,
        now: Instant,
        from: &Endpoint,
        datagram: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        self.admit(now, from, datagram, sink)?;
        let keys = self.keys.as_ref().ok_or(Drop::NoKey)?;
        let claim = Claim::read(&keys.identity, datagram)?;
        let id = self.peers.by_key(&claim.initiator());
        let home = self.peers.get(id.ok_or(Drop::UnknownPeer)?).home;
        if home != self.shard_map.shard() {
            return self.hand_off(home, HandoffKind::Initiation(claim), from, datagram);
        }
        self.answer_initiation(now, from, &claim, datagram, sink)
    }

    /// Takes an initiation that was admitted, with what was read of it.
    pub(crate) fn answer_initiation(
        &mut self,
        now: Instant,
        from: &Endpoint,
        claim: &Claim,
        datagram: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        let id = self.peers.by_key(&claim.initiator());
        let id = id.ok_or(Drop::UnknownPeer)?;
        let peer = self.peers.get_mut(id);
        let too_soon = peer
            .last_initiation
            .is_some_and(|last| now.saturating_duration_since(last) < INITIATION_INTERVAL_MIN);
        if too_soon {
            return Err(Drop::Flood);
        }
        let tunnel = peer.tunnel.as_mut().ok_or(Drop::NoKey)?;
        let mut response = [0; HANDSHAKE_RESPONSE_LEN];
        let freshness = tunnel.respond(now, &mut self.sources, claim, datagram, &mut response)?;
        peer.last_initiation = Some(now);
        // Until a session is confirmed nothing can be sent on it anyway, and what confirms it moves the endpoint.
        match (freshness, peer.endpoint) {
            (Freshness::Unproven, Some(_)) => peer.count_received(now, datagram.len()),
            (Freshness::New, _) | (Freshness::Unproven, None) => {
                peer.received(now, from, datagram.len());
            }
        }
        self.wake(now, id);
        self.send_message_to(now, id, from, &response, sink);
        Ok(())
    }

    fn handle_response(
        &mut self,
        now: Instant,
        from: &Endpoint,
        receiver_index: u32,
        datagram: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        self.admit(now, from, datagram, sink)?;
        let home = self.shard_map.home_of_index(receiver_index);
        if home != self.shard_map.shard() {
            return self.hand_off(home, HandoffKind::Response(receiver_index), from, datagram);
        }
        self.take_response(now, from, receiver_index, datagram, sink)
    }

    /// Takes a response that was admitted.
    pub(crate) fn take_response(
        &mut self,
        now: Instant,
        from: &Endpoint,
        receiver_index: u32,
        datagram: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        let id = self.peer_of_session(receiver_index)?;
        let peer = self.peers.get_mut(id);
        let tunnel = peer.tunnel.as_mut().ok_or(Drop::NoKey)?;
        tunnel.complete(now, datagram)?;
        peer.last_handshake = Some(now);
        peer.received(now, from, datagram.len());
        self.wake(now, id);
        // The first message on a session tells the responder that it may use it; a packet that waited does as well.
        if !self.flush_staged(now, id, sink) {
            self.send_keepalive(now, id, sink);
        }
        Ok(())
    }

    /// A cookie proves nothing about where the peer is, so the endpoint stays. It says whom it is for where data does,
    /// and is steered like data.
    fn handle_cookie_reply(
        &mut self,
        now: Instant,
        receiver_index: u32,
        datagram: &[u8],
    ) -> Result<(), Drop> {
        let id = self.peer_of_session(receiver_index)?;
        let tunnel = self.peers.get_mut(id).tunnel.as_mut().ok_or(Drop::NoKey)?;
        tunnel.cookie(now, datagram)
    }

    /// Passes a handshake message through the gate, which may answer it with a cookie.
    fn admit(
        &mut self,
        now: Instant,
        from: &Endpoint,
        datagram: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        let keys = self.keys.as_mut().ok_or(Drop::NoKey)?;
        let mut reply = [0; COOKIE_REPLY_LEN];
        let sources = &mut self.sources;
        match keys
            .gate
            .admit(now, sources, from.remote, datagram, &mut reply)
        {
            Admission::Admitted => Ok(()),
            Admission::Refused(reason) => Err(reason),
            Admission::Cookie => {
                sink.datagram(reply.len(), from, Departure::default(), |room| {
                    room.copy_from_slice(&reply)
                });
                Err(Drop::UnderLoad)
            }
        }
    }

    fn peer_of_session(&mut self, receiver_index: u32) -> Result<PeerId, Drop> {
        if let Some((index, id)) = self.recent.receiver_index
            && index == receiver_index
        {
            return Ok(id);
        }
        let id = self
            .peers
            .by_receiver_index(receiver_index)
            .ok_or(Drop::UnknownSession)?;
        self.recent.receiver_index = Some((receiver_index, id));
        Ok(id)
    }
}

/// The first message, and the number at the start that can be taken together: data messages of one session.
fn leading_messages(datagrams: &[u8], datagram_len: usize) -> (Option<Message>, usize) {
    let session = |message: Option<Message>| match message {
        Some(Message::Data { receiver_index, .. }) => Some(receiver_index),
        _ => None,
    };
    let mut messages = datagrams.chunks(datagram_len).map(Message::parse);
    let first = messages.next().flatten();
    let followers = messages
        .take(GROUP_LEN_MAX - 1)
        .take_while(|message| session(first).is_some() && session(*message) == session(first))
        .count();
    (first, 1 + followers)
}
