//! Engines that find out about the path between them.

use super::*;
use crate::{Batches, DATA_OVERHEAD_LEN, SendMode};

const HEADERS_LEN: usize = 20 + 8;
const TICK: Duration = Duration::from_millis(100);

/// A path between two hosts, and their time.
struct Way {
    now: Instant,
    mtu: usize,
    /// Of datagrams that leave together only the first arrives.
    mangles: bool,
}

impl Way {
    fn new(mtu: usize) -> Self {
        Self {
            now: clock(),
            mtu,
            mangles: false,
        }
    }

    /// Lets `a` send a large packet in every tick until `done`, at most two seconds.
    fn until(&mut self, a: &mut Host, b: &mut Host, done: impl Fn(&PeerSnapshot) -> bool) -> bool {
        for _ in 0..20 {
            a.send(&packet(1, 2, 1300));
            self.tick(a, b);
            if done(&a.peer(b.public_key)) {
                return true;
            }
        }
        false
    }

    fn tick(&mut self, a: &mut Host, b: &mut Host) {
        self.now += TICK;
        a.engine.handle_timeout(self.now, &mut a.out);
        b.engine.handle_timeout(self.now, &mut b.out);
        while !a.out.datagrams.is_empty() || !b.out.datagrams.is_empty() {
            self.carry(a, b);
            self.carry(b, a);
        }
    }

    fn carry(&self, from: &mut Host, to: &mut Host) {
        let mut batch_len = 0;
        for (mut datagram, _, departure) in std::mem::take(&mut from.out.datagrams) {
            let fits = datagram.len() + HEADERS_LEN <= self.mtu;
            let whole = fits || departure.mode == SendMode::Fragmented;
            let batched = departure.mode == SendMode::Batched && datagram.len() > 1000;
            let mangled = self.mangles && batched && datagram.len() == batch_len;
            batch_len = if batched { datagram.len() } else { 0 };
            if whole && !mangled {
                let at = Endpoint::configured(from.at);
                to.engine.handle_datagram(
                    self.now,
                    &at,
                    departure.ecn.into(),
                    &mut datagram,
                    &mut to.out,
                );
            }
        }
    }
}

fn ready_pair() -> (Host, Host) {
    let (mut a, mut b) = pair();
    for host in [&mut a, &mut b] {
        host.engine.set_mtu(1420, 1420);
        host.engine.set_udp_gso(true);
    }
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    (a, b)
}

#[test]
fn a_path_that_takes_everything_is_known_to() {
    let (mut a, mut b) = ready_pair();
    let mut way = Way::new(1500);
    assert!(way.until(&mut a, &mut b, |peer| peer.batches == Batches::Work));
    assert_eq!(a.peer(b.public_key).path_mtu, Some(1480));
    let route = a.engine.route(&packet(1, 2, 1420)).unwrap();
    assert_eq!(route.mtu(), usize::MAX);
    assert_eq!(b.peer(a.public_key).path_mtu, None, "b has sent nothing");
    let malformed = b.dropped(Drop::Spoof) + b.dropped(Drop::MalformedPacket);
    assert_eq!(malformed, 0);
}

#[test]
fn a_smaller_path_limits_packets_and_their_padding() {
    let (mut a, mut b) = ready_pair();
    let mut way = Way::new(1400);
    assert!(way.until(&mut a, &mut b, |peer| peer.path_mtu == Some(1400)));
    let inner_mtu = 1400 - HEADERS_LEN - DATA_OVERHEAD_LEN;
    let route = a.engine.route(&packet(1, 2, 84)).unwrap();
    assert_eq!(route.mtu(), inner_mtu);
    assert_eq!(route.padded_len(inner_mtu - 1), inner_mtu);

    way.mtu = 1300;
    assert!(way.until(&mut a, &mut b, |peer| peer.path_mtu == Some(1300)));
}

#[test]
fn a_path_that_mangles_batches_gets_none_and_the_next_is_tested_anew() {
    let (mut a, mut b) = ready_pair();
    let mut way = Way::new(1500);
    way.mangles = true;
    assert!(way.until(&mut a, &mut b, |peer| peer.batches == Batches::Broken));
    a.send(&packet(1, 2, 1300));
    let (_, _, departure) = a.out.datagrams.last().unwrap();
    assert_eq!(departure.mode, SendMode::Single);

    way.mangles = false;
    b.at = "192.0.2.77:7".parse().unwrap();
    b.send(&packet(2, 1, 84));
    assert!(way.until(&mut a, &mut b, |peer| peer.batches == Batches::Work));
    a.send(&packet(1, 2, 1300));
    let (_, _, departure) = a.out.datagrams.last().unwrap();
    assert_eq!(departure.mode, SendMode::Batched);
}

#[test]
fn small_packets_cause_no_probes() {
    let (mut a, mut b) = ready_pair();
    let mut way = Way::new(1500);
    for _ in 0..20 {
        a.send(&packet(1, 2, 1000));
        let datagrams = a.out.datagrams.len();
        a.engine.handle_timeout(way.now + TICK, &mut a.out);
        assert_eq!(a.out.datagrams.len(), datagrams);
        way.tick(&mut a, &mut b);
    }
    assert_eq!(a.peer(b.public_key).path_mtu, None);
}

#[test]
fn nobody_behind_the_tun_speaks_as_an_engine() {
    let (mut a, _) = ready_pair();
    let mut forged = vec![0; 60];
    crate::probe::Probe::Question { train: 1 }.write(&mut forged);
    assert_eq!(a.engine.route(&forged), None);
    assert_eq!(a.dropped(Drop::NoPeer), 1);
}
