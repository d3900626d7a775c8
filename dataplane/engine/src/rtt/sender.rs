//! Our side of the measurement: tests that were sent, and what their replies tell.
//!
//! A round trip is known when three things have come: the reply, our kernel's stamp of the test, and the peer's
//! kernel's stamp of the reply, which follows in the next reply. What does not come in time is replaced by what the
//! processes wrote, and the sample says so.

use std::collections::VecDeque;
use std::time::Duration;

use super::counts::Counts;
use super::histogram::Histogram;
use super::snapshot::RttSnapshot;
use super::window::{Sample, Window};
use crate::stamp::{FollowUp, Reply, Stamp, Stamper, Test};

/// A reply later than this is late, and counts as lost.
const REPLY_LIMIT_NS: u64 = 2_000_000_000;
/// Tests that may be without a sample at a time: a burst has one in 2 ms, and a reply has two seconds.
const PENDING_MAX: usize = 1024;
/// For the stamp that follows: longer than the time between two tests.
const FOLLOW_UP_LIMIT_NS: u64 = 12_000_000_000;
/// The processes at both ends take microseconds for a test and its reply, and some milliseconds under load. If they
/// take more than this, one of them did not run.
const STALL_MIN: Duration = Duration::from_millis(50);
/// So far may replies overtake one another; a reflector that counts from further back has begun anew.
const OVERTAKEN_MAX: u32 = 16;

/// The sender of the tests; see the module.
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
    /// The time of the last sample.
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

    /// The state at `now_ns`.
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

    /// The reflector has lost its count. Losses in between are not counted.
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

    /// Takes the oldest test as it is: nothing more will come for it.
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
mod tests;
