//! Tests of the round trip on their way out and in.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::engine::Engine;
use crate::key::PublicKey;
use crate::message::DATA_OVERHEAD_LEN;
use crate::outer_header::{OuterHeader, WallNs};
use crate::peer::Peer;
use crate::peer_id::PeerId;
use crate::probe::Probe;
use crate::rtt::{BURST_LEN, Departing, Rtt};
use crate::sink::{SendMode, Sink};
use crate::sources::Sources;
use crate::stamp::{Reply, Stamp, Test};

impl Engine {
    /// The kernel has stamped the departure of the datagram that [`SendMode::Stamped`] named `token`.
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

    /// Tests the way to those of `wanted` that there is a session with, or to all, `count` times in quick succession. A
    /// peer that has never answered gets one test.
    pub fn measure_round_trips(
        &mut self,
        now: Instant,
        count: u16,
        wanted: Option<&BTreeSet<PublicKey>>,
    ) {
        if self.stamp_clock.is_none() {
            return;
        }
        for id in self.peers.ids().to_vec() {
            let peer = self.peers.get_mut(id);
            let is_wanted = wanted.is_none_or(|wanted| wanted.contains(&peer.public_key));
            if !is_wanted || !peer.is_ready(now) {
                continue;
            }
            let rtt = peer.measured(now, &mut self.sources);
            // The last brings the stamp that the one before it waits for.
            let tests = if rtt.sender.is_answered() {
                u32::from(count) + 1
            } else {
                1
            };
            self.begin_burst(now, id, tests);
        }
    }

    /// Sends the test that is due to a peer, if one is.
    pub(crate) fn measure(&mut self, now: Instant, id: PeerId, sink: &mut impl Sink) {
        let peer = self.peers.get_mut(id);
        if self.stamp_clock.is_none() || !peer.is_ready(now) {
            return;
        }
        let used = std::mem::take(&mut peer.used);
        let rtt = peer.measured(now, &mut self.sources);
        if rtt.schedule.is_due(now, used, rtt.sender.is_answered()) {
            self.send_test(now, id, sink);
        }
    }

    /// Sends a test of a burst, if one is due.
    pub(crate) fn measure_bursts(&mut self, now: Instant, sink: &mut impl Sink) {
        let Some(id) = self.bursts.take(now) else {
            return;
        };
        self.send_test(now, id, sink);
        let Some(rtt) = &mut self.peers.get_mut(id).rtt else {
            return;
        };
        rtt.burst_left = rtt.burst_left.saturating_sub(1);
        if rtt.burst_left > 0 {
            self.bursts.add(now, id);
        }
    }

    fn begin_burst(&mut self, now: Instant, id: PeerId, tests: u32) {
        if let Some(rtt) = &mut self.peers.get_mut(id).rtt {
            rtt.burst_left = rtt.burst_left.max(tests);
            self.bursts.add(now, id);
        }
    }

    fn send_test(&mut self, now: Instant, id: PeerId, sink: &mut impl Sink) {
        let Some(clock) = &self.stamp_clock else {
            return;
        };
        let peer = self.peers.get_mut(id);
        let Some(rtt) = &mut peer.rtt else {
            return;
        };
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
        outer: OuterHeader,
        sink: &mut impl Sink,
    ) {
        let Some((delivered, arrived)) = self.stamps(outer) else {
            return;
        };
        let peer = self.peers.get_mut(id);
        let rtt = peer.measured(now, &mut self.sources);
        let reply = rtt.reflector.reflect(test, arrived, delivered.ns);
        let token = self.awaited.expect(Departing::Reply {
            peer: id,
            sequence: reply.sequence,
        });
        peer.send_stamped(now, Probe::Reply(reply), token, sink);
    }

    /// Takes the answer to a test.
    pub(crate) fn take_reply(
        &mut self,
        now: Instant,
        id: PeerId,
        reply: Reply,
        outer: OuterHeader,
    ) {
        let Some((delivered, arrived)) = self.stamps(outer) else {
            return;
        };
        let Some(rtt) = &mut self.peers.get_mut(id).rtt else {
            return;
        };
        let was_answered = rtt.sender.is_answered();
        rtt.sender.on_reply(reply, arrived, delivered.ns);
        if !was_answered && rtt.sender.is_answered() {
            self.begin_burst(now, id, BURST_LEN.into());
        }
    }

    /// The time at which the engine got a datagram, and its time of arrival as far as that is known.
    fn stamps(&mut self, outer: OuterHeader) -> Option<(Stamp, Stamp)> {
        let clock = self.stamp_clock.as_mut()?;
        let (delivered, arrived) = clock.convert(outer.arrived);
        Some((delivered, arrived.unwrap_or(delivered)))
    }
}

impl Peer {
    /// Its measurement, which begins now if there is none.
    fn measured(&mut self, now: Instant, sources: &mut Sources) -> &mut Rtt {
        self.rtt
            .get_or_insert_with(|| Box::new(Rtt::new(now, sources.draw_u32())))
    }

    fn send_stamped(&mut self, now: Instant, probe: Probe, token: u32, sink: &mut impl Sink) {
        let datagram_len = probe.len() + DATA_OVERHEAD_LEN;
        self.send_probe(now, probe, datagram_len, SendMode::Stamped(token), sink);
    }
}
