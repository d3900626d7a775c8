//! Tests of the round trip on their way out and in.

use std::time::Instant;

use crate::engine::Engine;
use crate::message::DATA_OVERHEAD_LEN;
use crate::outer::{Outer, WallNs};
use crate::peer::{Peer, PeerId};
use crate::probe::Probe;
use crate::rtt::{Departing, Rtt};
use crate::sink::{Manner, Sink};
use crate::stamp::{Reply, Stamp, Test};

impl Engine {
    /// The kernel has stamped the departure of the datagram that [`Manner::Stamped`] named `token`.
    pub fn handle_departure(&mut self, token: u32, at: WallNs) {
        let Some(departing) = self.awaited.take(token) else {
            return;
        };
        let Some(clock) = &mut self.stamp_clock else {
            return;
        };
        let (_, Some(stamp)) = clock.convert(Some(at)) else {
            return;
        };
        match departing {
            Departing::Test { peer, sequence } => {
                if let Some(rtt) = &mut self.peers.get_mut(peer).rtt {
                    rtt.sender.left(sequence, stamp.ns);
                }
            }
            Departing::Reply { peer, sequence } => {
                if let Some(rtt) = &mut self.peers.get_mut(peer).rtt {
                    rtt.reflector.left(sequence, stamp.ns);
                }
            }
        }
    }

    /// Sends the test that is due to a peer, if one is.
    pub(crate) fn measure(&mut self, now: Instant, id: PeerId, sink: &mut impl Sink) {
        let Some(clock) = &mut self.stamp_clock else {
            return;
        };
        let peer = self.peers.get_mut(id);
        if !peer.is_ready() {
            return;
        }
        let used = std::mem::take(&mut peer.used);
        let rtt = peer.measured(now, &mut self.random);
        if !rtt.schedule.is_due(now, used, rtt.sender.is_answered()) {
            return;
        }
        let now_ns = clock.now().ns;
        rtt.sender.expire(now_ns);
        let test = rtt.sender.send(now_ns);
        let token = self.awaited.expect(Departing::Test {
            peer: id,
            sequence: test.sequence,
        });
        peer.send_stamped(now, Probe::Test(test), token, sink);
    }

    /// Answers a test.
    pub(crate) fn answer_test(
        &mut self,
        now: Instant,
        id: PeerId,
        test: Test,
        outer: Outer,
        sink: &mut impl Sink,
    ) {
        let Some((delivered, arrived)) = self.stamps(outer) else {
            return;
        };
        let peer = self.peers.get_mut(id);
        let rtt = peer.measured(now, &mut self.random);
        let reply = rtt.reflector.reflect(test, arrived, delivered.ns);
        let token = self.awaited.expect(Departing::Reply {
            peer: id,
            sequence: reply.sequence,
        });
        peer.send_stamped(now, Probe::Reply(reply), token, sink);
    }

    /// Takes the answer to a test.
    pub(crate) fn take_reply(&mut self, id: PeerId, reply: Reply, outer: Outer) {
        let Some((delivered, arrived)) = self.stamps(outer) else {
            return;
        };
        if let Some(rtt) = &mut self.peers.get_mut(id).rtt {
            rtt.sender.on_reply(reply, arrived, delivered.ns);
        }
    }

    /// When a datagram came into our hands, and when it arrived as far as anybody knows.
    fn stamps(&mut self, outer: Outer) -> Option<(Stamp, Stamp)> {
        let clock = self.stamp_clock.as_mut()?;
        let (delivered, arrived) = clock.convert(outer.arrived);
        Some((delivered, arrived.unwrap_or(delivered)))
    }
}

impl Peer {
    /// Its measurement, which begins now if there is none.
    fn measured(&mut self, now: Instant, random: &mut dyn FnMut() -> u32) -> &mut Rtt {
        self.rtt
            .get_or_insert_with(|| Box::new(Rtt::new(now, random())))
    }

    fn send_stamped(&mut self, now: Instant, probe: Probe, token: u32, sink: &mut impl Sink) {
        let datagram_len = probe.len() + DATA_OVERHEAD_LEN;
        self.send_probe(now, probe, datagram_len, Manner::Stamped(token), sink);
    }
}
