//! Probes on their way out and in.

use std::time::Instant;

use crate::engine::Engine;
use crate::message::DATA_OVERHEAD_LEN;
use crate::outer_header::OuterHeader;
use crate::path::batches::Step;
use crate::path::{Limits, Path};
use crate::peer::Peer;
use crate::peer_id::PeerId;
use crate::probe::{PROBE_LEN, Probe};
use crate::sink::{Departure, SendMode, Sink};

impl Engine {
    /// Sends the probes that are due on the path to a peer.
    pub(crate) fn probe_path(&mut self, now: Instant, id: PeerId, sink: &mut impl Sink) {
        let peer = self.peers.get_mut(id);
        let busy = std::mem::take(&mut peer.large_sent);
        let Some(endpoint) = peer.endpoint else {
            return;
        };
        if !peer.is_ready(now) || self.link_mtu == 0 {
            return;
        }
        if let Some(path) = &peer.path
            && !path.is_about(endpoint.remote, self.link_mtu)
        {
            peer.path = None;
            peer.limits = Limits::UNKNOWN;
        }
        if busy && peer.path.is_none() {
            peer.path = Some(Box::new(Path::new(endpoint.remote, self.link_mtu)));
        }
        let Some(path) = &mut peer.path else {
            return;
        };
        let sizes = path.poll_mtu(now, busy);
        let step = if self.udp_gso {
            path.poll_batches(now, busy)
        } else {
            None
        };
        let train_datagram_len = path.train_datagram_len().unwrap_or(0);
        peer.limits = path.limits();

        if let Some((round, lens)) = sizes {
            for len in lens {
                peer.send_probe(now, Probe::Size { round }, len, SendMode::Whole, sink);
            }
        }
        match step {
            Some(Step::Train { id, len, batched }) => {
                peer.send_train(now, id, len, train_datagram_len, batched, sink);
            }
            Some(Step::Question { id }) => {
                let question = Probe::Question { train: id };
                peer.send_short_probe(now, question, sink);
            }
            None => {}
        }
    }

    /// A probe has come out of the tunnel, in a datagram of `datagram_len` bytes.
    #[cold]
    pub(crate) fn handle_probe(
        &mut self,
        now: Instant,
        id: PeerId,
        probe: Probe,
        datagram_len: usize,
        outer: OuterHeader,
        sink: &mut impl Sink,
    ) {
        let peer = self.peers.get_mut(id);
        match probe {
            Probe::Test(test) => self.answer_test(now, id, test, outer, sink),
            Probe::Reply(reply) => self.take_reply(now, id, reply, outer),
            Probe::Size { round } => {
                let datagram_len = datagram_len as u32;
                let answer = Probe::Answer {
                    round,
                    datagram_len,
                };
                peer.send_short_probe(now, answer, sink);
            }
            Probe::Train { train, index } => peer.arrivals.note(train, index),
            Probe::Question { train } => {
                let arrived = peer.arrivals.count(train);
                peer.send_short_probe(now, Probe::Report { train, arrived }, sink);
            }
            Probe::Answer {
                round,
                datagram_len,
            } => {
                if let Some(path) = &mut peer.path {
                    path.on_answer(now, round, datagram_len as usize);
                }
            }
            Probe::Report { train, arrived } => {
                if let Some(path) = &mut peer.path {
                    path.on_report(train, arrived);
                }
            }
            Probe::Unknown => {}
        }
    }
}

impl Peer {
    /// Equal datagrams with nothing else among them.
    fn send_train(
        &mut self,
        now: Instant,
        train: u16,
        len: u8,
        datagram_len: usize,
        batched: bool,
        sink: &mut impl Sink,
    ) {
        let mode = SendMode::of_data(batched);
        sink.part();
        for index in 0..len {
            let probe = Probe::Train { train, index };
            self.send_probe(now, probe, datagram_len, mode, sink);
        }
        sink.part();
    }

    fn send_short_probe(&mut self, now: Instant, probe: Probe, sink: &mut impl Sink) {
        let len = PROBE_LEN + DATA_OVERHEAD_LEN;
        self.send_probe(now, probe, len, SendMode::Batched, sink);
    }

    pub(crate) fn send_probe(
        &mut self,
        now: Instant,
        probe: Probe,
        datagram_len: usize,
        mode: SendMode,
        sink: &mut impl Sink,
    ) {
        let (Some(tunnel), Some(endpoint)) = (&mut self.tunnel, &self.endpoint) else {
            return;
        };
        if !tunnel.is_ready(now) {
            return;
        }
        let mut packet = vec![0; datagram_len - DATA_OVERHEAD_LEN];
        probe.write(&mut packet);
        sink.datagram(datagram_len, endpoint, Departure::new(mode), |room| {
            tunnel.seal(now, &packet, room);
        });
        self.sent(now, datagram_len);
    }
}
