//! Two ends and the way between them, without engines.

use proptest::prelude::*;

use super::*;
use crate::rtt::reflector::Reflector;

const MS: u64 = 1_000_000;
/// The peer's clock is elsewhere.
const ELSEWHERE: u64 = 5_000_000_000_000;

/// Two ends, a way of `way_ns` between them, and processes that take their time on top of it.
struct World {
    now_ns: u64,
    sender: Sender,
    reflector: Reflector,
    way_ns: u64,
    stall_ns: u64,
}

impl World {
    fn new(way_ns: u64, stall_ns: u64) -> Self {
        Self {
            now_ns: 1_000 * MS,
            sender: Sender::new(7),
            reflector: Reflector::default(),
            way_ns,
            stall_ns,
        }
    }

    /// The peer's answer to a test that was written now.
    fn reflect(&mut self, test: Test) -> Reply {
        let left = self.now_ns + self.stall_ns;
        self.sender.left(test.sequence, left);
        let t2 = Stamp {
            ns: left + self.way_ns + ELSEWHERE,
            by: Stamper::Kernel,
        };
        let written_ns = t2.ns + self.stall_ns;
        let reply = self.reflector.reflect(test, t2, written_ns);
        self.reflector
            .left(reply.sequence, written_ns + self.stall_ns);
        reply
    }

    fn receive(&mut self, reply: Reply) {
        let t4 = reply.sent_ns - ELSEWHERE + self.stall_ns + self.way_ns;
        let arrived = Stamp {
            ns: t4,
            by: Stamper::Kernel,
        };
        self.sender.on_reply(reply, arrived, t4 + self.stall_ns);
    }

    fn exchange(&mut self) {
        let test = self.sender.send(self.now_ns);
        let reply = self.reflect(test);
        self.receive(reply);
        self.now_ns += 100 * MS;
    }
}

#[test]
fn what_the_processes_do_is_not_in_the_networks_time() {
    let mut world = World::new(3 * MS, MS);
    (0..10).for_each(|_| world.exchange());
    let network = world.sender.window.network().unwrap();
    assert_eq!(
        (network.min, network.max),
        (Duration::from_millis(6), Duration::from_millis(6))
    );
    // Four stalls more: before each send and after each arrival.
    assert_eq!(
        world.sender.window.tunnel().unwrap().p50,
        Duration::from_millis(10)
    );
    assert_eq!(world.sender.window.by(), Stamper::Kernel);
    assert_eq!(
        world.sender.window.samples().len(),
        9,
        "the last waits for its stamp"
    );
}

#[test]
fn who_stands_still_is_not_far_away() {
    for (stall_ms, stalls) in [(200, 9), (12, 0)] {
        let mut world = World::new(MS, stall_ms * MS);
        (0..10).for_each(|_| world.exchange());
        let network = world.sender.window.network().unwrap();
        assert_eq!(network.max, Duration::from_millis(2));
        assert_eq!(world.sender.counts.stalls, stalls, "{stall_ms} ms");
    }
}

#[test]
fn a_reply_that_was_not_fetched_for_long_is_not_late() {
    let mut world = World::new(MS, 0);
    let test = world.sender.send(world.now_ns);
    let reply = world.reflect(test);
    let arrived = Stamp {
        ns: world.now_ns + 2 * MS,
        by: Stamper::Kernel,
    };
    let delivered_ns = world.now_ns + 2 * REPLY_LIMIT_NS;
    world.sender.on_reply(reply, arrived, delivered_ns);
    assert_eq!(
        (world.sender.counts.late, world.sender.counts.answered),
        (0, 1)
    );
}

#[test]
fn what_is_under_way_is_what_may_be_answered() {
    let mut world = World::new(MS, 0);
    world.exchange();
    world.sender.send(world.now_ns);
    assert_eq!(world.sender.snapshot(world.now_ns).under_way, 1);
    let late_ns = world.now_ns + REPLY_LIMIT_NS + 1;
    assert_eq!(world.sender.snapshot(late_ns).under_way, 0);
}

#[test]
fn a_burst_is_told_apart_from_what_was_before_it() {
    let mut world = World::new(MS, 0);
    (0..10).for_each(|_| world.exchange());
    let before = world.sender.snapshot(world.now_ns);
    world.way_ns = 2 * MS;
    (0..6).for_each(|_| world.exchange());
    let fresh = world.sender.snapshot(world.now_ns).since(&before, 5);
    assert_eq!(fresh.counts.sent, 6);
    let network = fresh.window.network().unwrap();
    assert_eq!(fresh.window.samples().len(), 5);
    assert_eq!(
        network.min,
        Duration::from_millis(4),
        "none of the old ones"
    );
}

#[test]
fn without_the_last_stamp_the_sample_says_so() {
    let mut world = World::new(MS, 0);
    world.exchange();
    world.sender.expire(world.now_ns + FOLLOW_UP_LIMIT_NS);
    assert_eq!(world.sender.window.by(), Stamper::User);
    assert_eq!(
        world.sender.window.network().unwrap().p50,
        Duration::from_millis(2)
    );
}

#[test]
fn a_reply_is_late_a_duplicate_or_forged() {
    let mut world = World::new(MS, 0);
    let test = world.sender.send(world.now_ns);
    let reply = world.reflect(test);
    world.receive(reply);
    world.receive(reply);
    let mut forged = reply;
    forged.test.sequence = 1;
    world.receive(forged);
    forged = reply;
    forged.test.session = 8;
    world.receive(forged);

    let slow = world.sender.send(world.now_ns);
    let mut wrong = world.reflect(slow);
    wrong.test.sent_ns += 1;
    world.receive(wrong);
    world.way_ns = 3_000 * MS;
    let slow = world.reflect(slow);
    world.receive(slow);
    world.sender.expire(world.now_ns + 20_000 * MS);
    world.receive(slow);
    let counts = world.sender.counts;
    assert_eq!(
        (
            counts.answered,
            counts.duplicates,
            counts.late,
            counts.forged
        ),
        (1, 1, 2, 3)
    );
}

#[test]
fn a_reflector_that_begins_anew_is_no_loss() {
    let mut world = World::new(MS, 0);
    (0..100).for_each(|_| world.exchange());
    world.reflector = Reflector::default();
    (0..5).for_each(|_| world.exchange());
    let counts = world.sender.counts;
    assert_eq!((counts.lost_forward, counts.lost_reverse), (0, 0));
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    LostForward,
    LostReverse,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        8 => Just(Fate::Arrives),
        1 => Just(Fate::LostForward),
        1 => Just(Fate::LostReverse),
    ];
    proptest::collection::vec(fate, 0..400)
}

proptest! {
    /// The twin is the list itself, up to the last that arrived.
    #[test]
    fn losses_are_counted_by_direction(mut fates in fates()) {
        fates.push(Fate::Arrives);
        let mut world = World::new(MS, 0);
        for fate in &fates {
            let test = world.sender.send(world.now_ns);
            match fate {
                Fate::LostForward => {}
                Fate::LostReverse => {
                    world.reflect(test);
                }
                Fate::Arrives => {
                    let reply = world.reflect(test);
                    world.receive(reply);
                }
            }
            world.now_ns += 100 * MS;
        }
        let count = |wanted: fn(&Fate) -> bool| fates.iter().filter(|fate| wanted(fate)).count() as u64;
        let counts = world.sender.counts;
        prop_assert_eq!(counts.lost_forward, count(|fate| matches!(fate, Fate::LostForward)));
        prop_assert_eq!(counts.lost_reverse, count(|fate| matches!(fate, Fate::LostReverse)));
        prop_assert_eq!(counts.answered, count(|fate| matches!(fate, Fate::Arrives)));
    }

    /// Neighbours swap places on one of the ways.
    #[test]
    fn who_is_overtaken_is_not_lost(swaps in proptest::collection::vec(any::<Option<bool>>(), 1..50)) {
        let mut world = World::new(MS, 0);
        for swap in &swaps {
            let tests = [world.sender.send(world.now_ns), world.sender.send(world.now_ns)];
            let [first, second] = match swap {
                Some(true) => tests.map(|test| test.sequence ^ 1),
                _ => tests.map(|test| test.sequence),
            };
            let mut replies = [first, second].map(|sequence| {
                let test = tests[(sequence & 1) as usize];
                world.reflect(test)
            });
            if *swap == Some(false) {
                replies.reverse();
            }
            replies.into_iter().for_each(|reply| world.receive(reply));
            world.now_ns += 100 * MS;
        }
        let counts = world.sender.counts;
        let times = |wanted: bool| swaps.iter().filter(|swap| **swap == Some(wanted)).count() as u64;
        prop_assert_eq!((counts.lost_forward, counts.lost_reverse), (0, 0));
        prop_assert_eq!((counts.reordered_forward, counts.reordered_reverse), (times(true), times(false)));
    }
}
