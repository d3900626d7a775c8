//! From the network to the TUN.

use std::time::{Duration, Instant};

use crate::drops::Drop;
use crate::ecn::Ecn;
use crate::endpoint::Endpoint;
use crate::engine::Engine;
use crate::handover::Matter;
use crate::message::{COOKIE_REPLY_LEN, DATA_OVERHEAD_LEN, HANDSHAKE_RESPONSE_LEN, Message};
use crate::outer::Outer;
use crate::packet::{PacketHead, packet_len};
use crate::peer::PeerId;
use crate::probe::Probe;
use crate::sink::{Departure, Sink};
use crate::tunnel::{Admission, Claim};

/// An initiation costs us four scalar multiplications: from one peer, at most this often (the kernel's
/// `INITIATIONS_PER_SECOND` is 50).
const INITIATION_INTERVAL_MIN: Duration = Duration::from_millis(20);

impl Engine {
    /// Takes one datagram that came from `from` in the packet `outer`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: &Endpoint,
        outer: Outer,
        datagram: &[u8],
        sink: &mut impl Sink,
    ) {
        let outcome = match Message::parse(datagram) {
            Some(Message::Data {
                receiver_index,
                counter,
            }) => {
                let session = (receiver_index, counter);
                self.handle_data(now, from, outer, session, datagram, sink)
            }
            Some(Message::HandshakeInitiation) => self.handle_initiation(now, from, datagram, sink),
            Some(Message::HandshakeResponse { receiver_index }) => {
                self.handle_response(now, from, receiver_index, datagram, sink)
            }
            Some(Message::CookieReply { receiver_index }) => {
                self.handle_cookie_reply(now, receiver_index, datagram)
            }
            None => Err(Drop::MalformedMessage),
        };
        if let Err(reason) = outcome {
            self.drops.count(reason);
        }
    }

    fn handle_data(
        &mut self,
        now: Instant,
        from: &Endpoint,
        outer: Outer,
        (receiver_index, counter): (u32, u64),
        datagram: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Drop> {
        let id = self.peer_of_session(receiver_index)?;
        let tunnel = self
            .peers
            .get(id)
            .tunnel
            .as_ref()
            .ok_or(Drop::UnknownSession)?;
        let was_ready = tunnel.is_ready(now);
        let mut probe = None;
        let delivery = sink.packet(datagram.len(), |room| {
            let session = (receiver_index, counter);
            let len = self.open(now, from, id, session, datagram, room)?;
            // A packet may say that it has no length; only a message without one is a keepalive.
            if datagram.len() > DATA_OVERHEAD_LEN {
                probe = Probe::parse(&room[..len]);
                if probe.is_some() {
                    return Ok(0);
                }
                self.check_inner(id, outer.ecn, &mut room[..len])?;
            }
            Ok(len)
        });
        if let Some(probe) = probe {
            self.handle_probe(now, id, probe, datagram.len(), outer, sink);
        }
        if !was_ready {
            self.flush_staged(now, id, sink);
        }
        delivery
    }

    /// Authenticates and decrypts; the length of the inner packet, zero for a keepalive.
    fn open(
        &mut self,
        now: Instant,
        from: &Endpoint,
        id: PeerId,
        (receiver_index, counter): (u32, u64),
        datagram: &[u8],
        room: &mut [u8],
    ) -> Result<usize, Drop> {
        let peer = self.peers.get_mut(id);
        let tunnel = peer.tunnel.as_mut().ok_or(Drop::UnknownSession)?;
        let (text_len, completed) = tunnel.open(now, receiver_index, counter, datagram, room)?;
        if completed {
            peer.last_handshake = Some(now);
        }
        peer.received(now, from, datagram.len());
        match text_len {
            0 => Ok(0),
            _ => packet_len(&room[..text_len]).ok_or(Drop::MalformedPacket),
        }
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
        if !self.place.is_door() {
            return self.hand_over(self.place.door(), Matter::Admission, from, datagram);
        }
        self.admit(now, from, datagram, sink)?;
        let keys = self.keys.as_ref().ok_or(Drop::NoKey)?;
        let claim = Claim::read(&keys.identity, datagram)?;
        let id = self.peers.by_key(&claim.initiator());
        let home = self.peers.get(id.ok_or(Drop::UnknownPeer)?).home;
        if home != self.place.shard() {
            return self.hand_over(home, Matter::Initiation(claim), from, datagram);
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
        tunnel.respond(now, &mut self.sources, claim, datagram, &mut response)?;
        peer.last_initiation = Some(now);
        peer.received(now, from, datagram.len());
        self.wake(now, id);
        self.send_message(now, id, &response, sink);
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
        if !self.place.is_door() {
            return self.hand_over(self.place.door(), Matter::Admission, from, datagram);
        }
        self.admit(now, from, datagram, sink)?;
        let home = self.place.home_of_index(receiver_index);
        if home != self.place.shard() {
            return self.hand_over(home, Matter::Response(receiver_index), from, datagram);
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

    /// A cookie proves nothing about where the peer is, so the endpoint stays. It says whom it is for where data does, and is
    /// steered like data.
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
        match keys.gate.admit(now, from.remote.ip(), datagram, &mut reply) {
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
