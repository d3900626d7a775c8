//! Our side of the measurement: tests that were sent, and what their replies tell.
//!
//! A round trip is known when three things have come: the reply, our kernel's stamp of the test, and the peer's kernel's
//! stamp of the reply, which follows in the next reply. What does not come in time is replaced by what the processes
//! wrote, and the sample says so.

use std::collections::VecDeque;
use std::time::Duration;

use super::RttSnapshot;
use super::histogram::Histogram;
use super::window::{Sample, Window};
use crate::stamp::{FollowUp, Reply, Stamp, Stamper, Test};

/// A reply later than this is late, and counts as lost.
const REPLY_LIMIT_NS: u64 = 2_000_000_000;
/// Tests that may be without a sample at a time: a burst has one in 2 ms, and a reply has two seconds.
const PENDING_MAX: usize = 1024;
/// For the stamp that follows: longer than the time between two tests.
const FOLLOW_UP_LIMIT_NS: u64 = 12_000_000_000;
/// What the processes at both ends take for a test and its reply is microseconds, and some milliseconds under load. If it is
/// more than this, one of them did not run.
const STALL_MIN: Duration = Duration::from_millis(50);
/// So far may replies overtake one another; a reflector that counts from further back has begun anew.
const OVERTAKEN_MAX: u32 = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Sender {
    session: u16,
    next_sequence: u32,
    /// In the order of their numbers.
    pending: VecDeque<Pending>,
    /// The highest number answered, and the reflector's count with it.
    frontier: Option<(u32, u32)>,
    /// Replies since the reflector began to count, and tests before that.
    replies: u32,
    epoch: u32,
    counts: Counts,
    window: Window,
    histogram: Histogram,
    /// When the last sample was taken.
    sampled_ns: Option<u64>,
}

#[derive(Debug)]
struct Pending {
    sequence: u32,
    sent_ns: u64,
    /// As the kernel saw it.
    left_ns: Option<u64>,
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    reply: Reply,
    arrived: Stamp,
    delivered_ns: u64,
}

/// What became of the tests, since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests sent.
    pub sent: u64,
    /// Tests answered in time.
    pub answered: u64,
    /// Tests that did not reach the peer, as far as a later reply tells.
    pub lost_forward: u64,
    /// Replies that did not reach us, as far as a later reply tells.
    pub lost_reverse: u64,
    /// Tests that arrived at the peer behind a later one.
    pub reordered_forward: u64,
    /// Replies that arrived behind a later one.
    pub reordered_reverse: u64,
    /// Replies that came after two seconds.
    pub late: u64,
    /// Second replies to a test.
    pub duplicates: u64,
    /// Replies to what was never sent.
    pub forged: u64,
    /// Samples for which the processes at both ends took 50 ms and more: one of them, or its machine, stood still.
    pub stalls: u64,
}

impl Counts {
    /// What has been added since `before`.
    pub(crate) const fn since(&self, before: &Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            answered: self.answered.saturating_sub(before.answered),
            lost_forward: self.lost_forward.saturating_sub(before.lost_forward),
            lost_reverse: self.lost_reverse.saturating_sub(before.lost_reverse),
            reordered_forward: self
                .reordered_forward
                .saturating_sub(before.reordered_forward),
            reordered_reverse: self
                .reordered_reverse
                .saturating_sub(before.reordered_reverse),
            late: self.late.saturating_sub(before.late),
            duplicates: self.duplicates.saturating_sub(before.duplicates),
            forged: self.forged.saturating_sub(before.forged),
            stalls: self.stalls.saturating_sub(before.stalls),
        }
    }
}

impl Sender {
    /// A session named `session`, in which nothing was sent.
    pub(crate) fn new(session: u16) -> Self {
        Self {
            session,
            next_sequence: 0,
            pending: VecDeque::new(),
            frontier: None,
            replies: 0,
            epoch: 0,
            counts: Counts::default(),
            window: Window::default(),
            histogram: Histogram::default(),
            sampled_ns: None,
        }
    }

    /// What is known at `now_ns`.
    pub(crate) fn snapshot(&self, now_ns: u64) -> RttSnapshot {
        let age_ns = self.sampled_ns.map(|at| now_ns.saturating_sub(at));
        RttSnapshot {
            counts: self.counts,
            window: self.window.clone(),
            histogram: self.histogram.clone(),
            age: age_ns.map(Duration::from_nanos),
            under_way: self.unanswered(now_ns),
        }
    }

    /// Tests that may still be answered.
    fn unanswered(&self, now_ns: u64) -> usize {
        let waits = |pending: &&Pending| {
            pending.answer.is_none() && now_ns.saturating_sub(pending.sent_ns) <= REPLY_LIMIT_NS
        };
        self.pending.iter().filter(waits).count()
    }

    /// True if any test ever was.
    pub(crate) fn is_answered(&self) -> bool {
        self.counts.answered > 0
    }

    /// The next test.
    pub(crate) fn send(&mut self, now_ns: u64) -> Test {
        if self.pending.len() == PENDING_MAX {
            self.conclude_first(now_ns);
        }
        let test = Test {
            sequence: self.next_sequence,
            session: self.session,
            sent_ns: now_ns,
        };
        self.pending.push_back(Pending {
            sequence: test.sequence,
            sent_ns: now_ns,
            left_ns: None,
            answer: None,
        });
        self.next_sequence = self.next_sequence.wrapping_add(1);
        self.counts.sent += 1;
        test
    }

    /// The kernel says when a test left.
    pub(crate) fn left(&mut self, sequence: u32, at_ns: u64) {
        if let Some(pending) = self.find(sequence) {
            pending.left_ns = Some(at_ns);
        }
    }

    /// Takes a reply that came at `arrived` and into our hands at `delivered_ns`.
    pub(crate) fn on_reply(&mut self, reply: Reply, arrived: Stamp, delivered_ns: u64) {
        let sequence = reply.test.sequence;
        if reply.test.session != self.session || sequence >= self.next_sequence {
            self.counts.forged += 1;
            return;
        }
        let Some(pending) = self.find(sequence) else {
            self.counts.late += 1;
            return;
        };
        if pending.sent_ns != reply.test.sent_ns {
            self.counts.forged += 1;
            return;
        }
        if pending.answer.is_some() {
            self.counts.duplicates += 1;
            return;
        }
        // Not when we had it in our hands: a process that stood still has not slowed the network.
        if arrived.ns.saturating_sub(pending.sent_ns) > REPLY_LIMIT_NS {
            self.counts.late += 1;
            return;
        }
        pending.answer = Some(Answer {
            reply,
            arrived,
            delivered_ns,
        });
        self.counts.answered += 1;
        self.account(sequence, reply.sequence);
        for earlier in reply.follow_ups.into_iter().flatten() {
            self.follow_up(earlier, delivered_ns);
        }
    }

    /// Lets time pass: what still waits for a stamp waits no longer.
    pub(crate) fn expire(&mut self, now_ns: u64) {
        while let Some(first) = self.pending.front() {
            let limit_ns = if first.answer.is_some() {
                FOLLOW_UP_LIMIT_NS
            } else {
                REPLY_LIMIT_NS
            };
            if now_ns.saturating_sub(first.sent_ns) <= limit_ns {
                return;
            }
            self.conclude_first(now_ns);
        }
    }

    fn find(&mut self, sequence: u32) -> Option<&mut Pending> {
        let by_sequence = |pending: &Pending| pending.sequence.cmp(&sequence);
        let at = self.pending.binary_search_by(by_sequence).ok()?;
        self.pending.get_mut(at)
    }

    /// The reflector counts what it answers, so two numbers tell on which way the others were lost.
    fn account(&mut self, sequence: u32, reflected: u32) {
        self.replies += 1;
        self.frontier = Some(match self.frontier {
            None => (sequence, reflected),
            Some((_, count)) if reflected.saturating_add(OVERTAKEN_MAX) < count => {
                self.begin_epoch(sequence, reflected)
            }
            Some((last, count)) if sequence < last => {
                if reflected > count {
                    self.counts.reordered_forward += 1;
                } else {
                    self.counts.reordered_reverse += 1;
                }
                (last, count.max(reflected))
            }
            Some((_, count)) => (sequence, count.max(reflected)),
        });
        self.count_losses();
    }

    /// The reflector has lost its count. What was lost in between is nobody's.
    fn begin_epoch(&mut self, sequence: u32, reflected: u32) -> (u32, u32) {
        self.epoch = sequence.saturating_sub(reflected);
        self.replies = 1;
        (sequence, reflected)
    }

    fn count_losses(&mut self) {
        let Some((last, count)) = self.frontier else {
            return;
        };
        let sent = u64::from(last - self.epoch.min(last)) + 1;
        let reflected = u64::from(count) + 1;
        self.counts.lost_forward = sent.saturating_sub(reflected);
        self.counts.lost_reverse = reflected.saturating_sub(self.replies.into());
    }

    /// An earlier reply left at a time that is known now.
    fn follow_up(&mut self, earlier: FollowUp, now_ns: u64) {
        let is_it = |pending: &Pending| {
            let answer = pending.answer.as_ref();
            answer.is_some_and(|answer| answer.reply.sequence == earlier.sequence)
        };
        if let Some(at) = self.pending.iter().position(is_it)
            && let Some(pending) = self.pending.remove(at)
        {
            self.take_sample(&pending, Some(earlier.sent_ns), now_ns);
        }
    }

    /// What has come for the oldest test is all that will.
    fn conclude_first(&mut self, now_ns: u64) {
        if let Some(pending) = self.pending.pop_front() {
            self.take_sample(&pending, None, now_ns);
        }
    }

    fn take_sample(&mut self, pending: &Pending, reply_left_ns: Option<u64>, now_ns: u64) {
        let Some(answer) = &pending.answer else {
            return;
        };
        let reply = &answer.reply;
        let kernel = |stamp: Stamp| stamp.by == Stamper::Kernel;
        let by_kernel = match (pending.left_ns, reply_left_ns) {
            (Some(t1), Some(t3)) if kernel(answer.arrived) && kernel(reply.received) => {
                round_trip(t1, reply.received.ns, t3, answer.arrived.ns)
            }
            _ => None,
        };
        // Stamps of both kinds on one machine would count its own queues once.
        let by_user = || {
            let asked_ns = pending.left_ns.filter(|_| kernel(answer.arrived));
            let t1 = asked_ns.unwrap_or(pending.sent_ns);
            let t4 = asked_ns.map_or(answer.delivered_ns, |_| answer.arrived.ns);
            round_trip(t1, reply.received.ns, reply.sent_ns, t4)
        };
        let (network, by) = match by_kernel {
            Some(network) => (network, Stamper::Kernel),
            None => match by_user() {
                Some(network) => (network, Stamper::User),
                None => return,
            },
        };
        let tunnel = Duration::from_nanos(answer.delivered_ns.saturating_sub(pending.sent_ns));
        self.counts.stalls += u64::from(tunnel.saturating_sub(network) >= STALL_MIN);
        self.histogram.record(network);
        self.window.push(Sample {
            network,
            tunnel,
            by,
        });
        self.sampled_ns = Some(now_ns);
    }
}

/// (T4 - T1) - (T3 - T2), if that is a time.
fn round_trip(t1: u64, t2: u64, t3: u64, t4: u64) -> Option<Duration> {
    let there_and_back = t4.checked_sub(t1)?;
    let at_the_peer = t3.checked_sub(t2)?;
    let ns = there_and_back.checked_sub(at_the_peer)?;
    (ns <= REPLY_LIMIT_NS).then(|| Duration::from_nanos(ns))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reflector::Reflector;
    use super::*;

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
}
