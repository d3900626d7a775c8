//! Engines that measure the way between them.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::{OuterHeader, Reading, Sample, SendMode, Stamper};

const TICK: Duration = Duration::from_millis(100);
const MS: u64 = 1_000_000;

/// A way on which a packet takes `way_ns` from driver to driver, and half a millisecond through either kernel.
struct Way {
    now: Instant,
    /// What the clocks of the engines show; the wall clock may be set.
    monotonic_ns: Arc<AtomicU64>,
    step_ns: Arc<AtomicU64>,
    way_ns: u64,
    lost: Rc<Cell<u32>>,
    stamps_departures: bool,
}

impl Way {
    fn new(a: &mut Host, b: &mut Host) -> Self {
        let way = Self {
            now: clock(),
            monotonic_ns: Arc::new(AtomicU64::new(1_000 * MS)),
            step_ns: Arc::default(),
            way_ns: 3 * MS,
            lost: Rc::default(),
            stamps_departures: true,
        };
        for host in [a, b] {
            let (clock, step) = (Arc::clone(&way.monotonic_ns), Arc::clone(&way.step_ns));
            host.engine.set_clocks(Box::new(move || {
                let monotonic_ns = clock.load(Ordering::Relaxed);
                let wall_ns =
                    (monotonic_ns + 77_000 * MS).wrapping_add(step.load(Ordering::Relaxed));
                Reading {
                    monotonic_ns,
                    wall_ns,
                }
            }));
        }
        way
    }

    fn wall_ns(&self) -> u64 {
        let step_ns = self.step_ns.load(Ordering::Relaxed);
        let monotonic_ns = self.monotonic_ns.load(Ordering::Relaxed);
        (monotonic_ns + 77_000 * MS).wrapping_add(step_ns)
    }

    fn pass(&self, ns: u64) {
        self.monotonic_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// So many tests, the first of them a second from now.
    fn tests(&mut self, a: &mut Host, b: &mut Host, count: u64) {
        let sent = |host: &Host, other: PublicKey| {
            let rtt = host.peer(other).rtt;
            rtt.map_or(0, |rtt| rtt.counts.sent)
        };
        while sent(a, b.public_key) < count {
            self.tick(a, b);
        }
    }

    fn tick(&mut self, a: &mut Host, b: &mut Host) {
        self.now += TICK;
        self.pass(100 * MS);
        a.engine.handle_timeout(self.now, &mut a.out);
        b.engine.handle_timeout(self.now, &mut b.out);
        while !a.out.datagrams.is_empty() || !b.out.datagrams.is_empty() {
            self.carry(a, b);
            self.carry(b, a);
        }
    }

    fn carry(&self, from: &mut Host, to: &mut Host) {
        for (mut datagram, _, departure) in std::mem::take(&mut from.out.datagrams) {
            self.pass(MS / 2);
            if let SendMode::Stamped(token) = departure.mode {
                if self.stamps_departures {
                    from.engine.handle_departure(token, self.wall_ns());
                }
                if self.lost.get() > 0 {
                    self.lost.set(self.lost.get() - 1);
                    continue;
                }
            }
            self.pass(self.way_ns);
            let arrived = Some(self.wall_ns());
            self.pass(MS / 2);
            let at = Endpoint::configured(from.at);
            let outer = OuterHeader {
                ecn: departure.ecn,
                arrived,
            };
            to.engine
                .handle_datagram(self.now, &at, outer, &mut datagram, &mut to.out);
        }
    }
}

impl Host {
    fn measure(&mut self, way: &Way, count: u16) {
        self.engine.measure_round_trips(way.now, count, None);
    }
}

fn ready_pair() -> (Host, Host) {
    let (mut a, mut b) = pair();
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    (a, b)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn the_way_is_measured_from_both_ends_without_what_is_around_it() {
    let (mut a, mut b) = ready_pair();
    let mut way = Way::new(&mut a, &mut b);
    way.tests(&mut a, &mut b, 10);
    for (host, other) in [(&a, b.public_key), (&b, a.public_key)] {
        let rtt = host.peer(other).rtt.unwrap();
        assert_eq!((rtt.counts.sent, rtt.counts.answered), (10, 10));
        let network = rtt.window.network().unwrap();
        assert_eq!((network.min, network.max), (ms(6), ms(6)));
        assert_eq!(rtt.window.by(), Stamper::Kernel);
        assert!(rtt.window.tunnel().unwrap().min >= ms(8), "{rtt:?}");
        assert!(rtt.age.unwrap() < ms(200), "{rtt:?}");
    }
    let malformed = b.dropped(Drop::Spoof) + b.dropped(Drop::MalformedPacket);
    assert_eq!(malformed, 0);
    assert!(b.delivered().len() == 1, "no test reaches the TUN");
}

#[test]
fn what_is_lost_is_lost_on_one_of_the_ways() {
    let (mut a, mut b) = ready_pair();
    let mut way = Way::new(&mut a, &mut b);
    way.tests(&mut a, &mut b, 1);
    // Both send a test in a tick: those of both are lost.
    way.lost.set(2);
    way.tests(&mut a, &mut b, 6);
    let counts = a.peer(b.public_key).rtt.unwrap().counts;
    assert_eq!((counts.sent, counts.answered), (6, 5));
    assert_eq!((counts.lost_forward, counts.lost_reverse), (1, 0));
}

#[test]
fn a_wall_clock_that_is_set_changes_no_sample() {
    for step_ns in [
        3_600_000 * MS,
        5 * MS,
        (5 * MS).wrapping_neg(),
        (60_000 * MS).wrapping_neg(),
    ] {
        let (mut a, mut b) = ready_pair();
        let mut way = Way::new(&mut a, &mut b);
        way.tests(&mut a, &mut b, 9);
        way.step_ns.store(step_ns, Ordering::Relaxed);
        way.tests(&mut a, &mut b, 21);
        a.measure(&way, 40);
        b.measure(&way, 40);
        way.tests(&mut a, &mut b, 62);
        let window = a.peer(b.public_key).rtt.unwrap().window;
        let by_kernel = |sample: &&Sample| sample.by == Stamper::Kernel;
        assert!(
            window.samples().filter(by_kernel).count() >= 35,
            "{window:?}"
        );
        for sample in window.samples() {
            let exact = sample.by == Stamper::Kernel && sample.network == ms(6);
            let coarse = sample.by == Stamper::User && (ms(6)..ms(9)).contains(&sample.network);
            assert!(
                exact || coarse,
                "{sample:?} after a step of {}",
                step_ns.cast_signed()
            );
        }
    }
}

#[test]
fn who_is_asked_measures_as_often_as_that() {
    let (mut a, mut b) = ready_pair();
    let mut way = Way::new(&mut a, &mut b);
    way.tests(&mut a, &mut b, 21);
    let before = a.peer(b.public_key).rtt.unwrap();
    a.measure(&way, 40);
    assert!(a.peer(b.public_key).rtt.unwrap().under_way >= 41);
    let due = a.engine.poll_timeout().map(|(due, _)| due).unwrap();
    assert!(due <= way.now + ms(2), "before the next tick");
    way.tests(&mut a, &mut b, before.counts.sent + 41);
    let after = a.peer(b.public_key).rtt.unwrap();
    assert_eq!(after.under_way, 0);
    assert_eq!(after.since(&before, 40).window.samples().len(), 40);
}

#[test]
fn a_peer_that_does_not_answer_is_asked_once() {
    let (mut a, mut b) = ready_pair();
    let mut way = Way::new(&mut a, &mut b);
    b.engine.stamp_clock = None;
    a.measure(&way, 40);
    way.tests(&mut a, &mut b, 1);
    let rtt = a.peer(b.public_key).rtt.unwrap();
    assert_eq!((rtt.counts.sent, rtt.under_way), (1, 1));
}

#[test]
fn only_who_is_wanted_is_measured_and_a_peer_that_is_removed_is_not() {
    let (mut a, mut b) = ready_pair();
    let way = Way::new(&mut a, &mut b);
    let nobody = [a.public_key].into();
    a.engine.measure_round_trips(way.now, 5, Some(&nobody));
    assert!(a.peer(b.public_key).rtt.is_none());
    let wanted = [b.public_key].into();
    a.engine.measure_round_trips(way.now, 5, Some(&wanted));
    assert!(a.peer(b.public_key).rtt.is_some());
    a.set_peer(PeerUpdate {
        remove: true,
        ..PeerUpdate::new(b.public_key)
    });
    a.engine.handle_timeout(way.now, &mut a.out);
    assert!(a.out.datagrams.is_empty());
}

#[test]
fn a_kernel_that_stamps_no_departures_leaves_it_to_the_process() {
    let (mut a, mut b) = ready_pair();
    let mut way = Way::new(&mut a, &mut b);
    way.stamps_departures = false;
    way.tests(&mut a, &mut b, 10);
    // What follows is due before the samples are taken without it.
    way.pass(20_000 * MS);
    (0..3).for_each(|_| way.tick(&mut a, &mut b));
    let window = a.peer(b.public_key).rtt.unwrap().window;
    assert_eq!(window.by(), Stamper::User);
    assert!(window.network().unwrap().min >= ms(6));
}

#[test]
fn without_clocks_nothing_is_measured_and_tests_are_not_answered() {
    let (mut a, mut b) = ready_pair();
    let mut way = Way::new(&mut a, &mut b);
    b.engine.stamp_clock = None;
    way.tests(&mut a, &mut b, 3);
    assert_eq!(b.peer(a.public_key).rtt.map(|rtt| rtt.counts), None);
    let counts = a.peer(b.public_key).rtt.unwrap().counts;
    assert_eq!((counts.sent, counts.answered), (3, 0));
    assert_eq!(
        (counts.lost_forward, counts.lost_reverse),
        (0, 0),
        "it is not measured, not lost"
    );
}

#[test]
fn a_peer_that_is_removed_takes_its_stamps_with_it() {
    let (mut a, mut b) = ready_pair();
    let mut way = Way::new(&mut a, &mut b);
    way.stamps_departures = false;
    way.tests(&mut a, &mut b, 1);
    let removal = PeerUpdate {
        remove: true,
        ..PeerUpdate::new(b.public_key)
    };
    a.set_peer(removal);
    for token in 0..4 {
        a.engine.handle_departure(token, way.wall_ns());
    }
}
