//! Whether batches survive the path: a train of equal datagrams leaves in one send (UDP GSO), and the peer says how
//! many arrived intact.
//!
//! Some kernels and network cards mangle all segments of a batch but the first, and nothing says so. Loss looks the
//! same, so a train that suffered is followed by one whose datagrams are sent one by one: only if that fares much
//! better are batches to blame. Where a full queue holds a batch in one piece it loses it in one piece, so that a train
//! of which nothing arrives says less than one of which only the first does, and neither is believed at once.
//!
//! ```text
//!   Batched train ──all──▶ works                                            ──few──▶ again, later
//!        │ some missing                                                    │
//!        ▼                                                                 │
//!   Single train ──more than twice as many──▶ again at once, then broken   ┴──as many──▶ works
//! ```

use std::time::{Duration, Instant};

/// Datagrams of a train.
pub(crate) const TRAIN_MAX: u8 = 16;
/// A verdict is good for so long, while nothing else is known to have changed.
const RETEST_INTERVAL: Duration = Duration::from_secs(600);
/// After a test that told nothing.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// What it takes to believe that batches are broken, and what a comparison adds to it: one in which some of the batch
/// arrived, and one in which nothing did.
const PROOF: u8 = 4;
const SOME_ARRIVED: u8 = 2;
const NONE_ARRIVED: u8 = 1;
/// Questions for a report before the test is given up.
const QUESTIONS_MAX: u8 = 5;

/// What is known about batches on a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Batches {
    /// Nothing yet, or the peer cannot tell; they are used.
    #[default]
    Untested,
    /// They arrive as they were sent.
    Work,
    /// They do not: datagrams are sent one by one.
    Broken,
}

impl Batches {
    /// The name in status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Untested => "untested",
            Self::Work => "works",
            Self::Broken => "broken",
        }
    }
}

/// What the test wants sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A train, in one send or one by one.
    Train { id: u16, len: u8, batched: bool },
    /// How many of the train have arrived?
    Question { id: u16 },
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct BatchTest {
    verdict: Batches,
    /// Collected against batches, up to [`PROOF`].
    evidence: u8,
    train: Option<Train>,
    /// Names the train that is under way.
    id: u16,
    next_at: Option<Instant>,
}

#[derive(Debug)]
struct Train {
    len: u8,
    /// How many arrived of the batched train before; none while this is that train.
    batched_arrived: Option<u8>,
    questions: u8,
    arrived: Option<u8>,
}

impl BatchTest {
    pub(crate) fn verdict(&self) -> Batches {
        self.verdict
    }

    /// The path has changed: test it again with the next occasion.
    pub(crate) fn renew(&mut self) {
        self.next_at = None;
    }

    /// `arrived` datagrams of the train `id` have arrived intact.
    pub(crate) fn on_report(&mut self, id: u16, arrived: u8) {
        if let Some(train) = &mut self.train
            && id == self.id
        {
            train.arrived = Some(arrived.min(train.len));
        }
    }

    /// What to send now. `busy` says that it is worth while, `train_len` how many datagrams fit in one batch.
    pub(crate) fn poll(&mut self, now: Instant, busy: bool, train_len: u8) -> Option<Step> {
        let Some(mut train) = self.train.take() else {
            let due = busy && train_len > 1 && self.next_at.is_none_or(|at| now >= at);
            return due.then(|| self.send(train_len, None));
        };
        match (train.arrived, train.batched_arrived) {
            (None, _) if train.questions == QUESTIONS_MAX => self.rest(now, RETRY_INTERVAL),
            (None, _) => {
                train.questions += 1;
                self.train = Some(train);
                Some(Step::Question { id: self.id })
            }
            (Some(arrived), None) if arrived == train.len => self.conclude(now, Batches::Work),
            (Some(arrived), None) => Some(self.send(train.len, Some(arrived))),
            (Some(single), Some(_)) if single < train.len / 2 => self.rest(now, RETRY_INTERVAL),
            (Some(single), Some(batched)) if batched < single / 2 => {
                self.accuse(now, batched, train.len)
            }
            (Some(_), Some(_)) => self.conclude(now, Batches::Work),
        }
    }

    fn send(&mut self, len: u8, batched_arrived: Option<u8>) -> Step {
        self.id = self.id.wrapping_add(1);
        self.train = Some(Train {
            len,
            batched_arrived,
            questions: 0,
            arrived: None,
        });
        Step::Train {
            id: self.id,
            len,
            batched: batched_arrived.is_none(),
        }
    }

    /// Batches fared much worse: once more, until there is no doubt.
    fn accuse(&mut self, now: Instant, batched: u8, len: u8) -> Option<Step> {
        self.evidence += if batched > 0 {
            SOME_ARRIVED
        } else {
            NONE_ARRIVED
        };
        if self.evidence >= PROOF {
            return self.conclude(now, Batches::Broken);
        }
        Some(self.send(len, None))
    }

    fn conclude(&mut self, now: Instant, verdict: Batches) -> Option<Step> {
        self.verdict = verdict;
        self.evidence = 0;
        self.rest(now, RETEST_INTERVAL)
    }

    fn rest(&mut self, now: Instant, interval: Duration) -> Option<Step> {
        self.next_at = Some(now + interval);
        None
    }
}

/// The receiving side: which datagrams of the peer's last train have arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrivals {
    id: u16,
    seen: u16,
}

impl Arrivals {
    /// Number `index` of the train `id` has arrived.
    pub(crate) fn note(&mut self, id: u16, index: u8) {
        if self.id != id {
            *self = Self { id, seen: 0 };
        }
        self.seen |= 1_u16.checked_shl(index.into()).unwrap_or(0);
    }

    /// How many of the train `id` have arrived.
    pub(crate) fn count(&self, id: u16) -> u8 {
        if self.id == id {
            self.seen.count_ones() as u8
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[expect(clippy::disallowed_methods, reason = "a test is a driver")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Runs a test over a path on which so many of a train arrive, and says what came of it and how long it took.
    fn judge(batched: u8, single: u8) -> (Batches, u32) {
        let mut test = BatchTest::default();
        let (mut now, mut arrived) = (start(), 0);
        for ticks in 0..20 {
            match test.poll(now, true, TRAIN_MAX) {
                Some(Step::Train { batched: true, .. }) => arrived = batched,
                Some(Step::Train { batched: false, .. }) => arrived = single,
                Some(Step::Question { id }) => test.on_report(id, arrived),
                None => return (test.verdict(), ticks),
            }
            now += TICK;
        }
        panic!("no end");
    }

    #[test]
    fn the_verdict_is_about_batches_and_not_about_loss() {
        let table = [
            (16, 16, Batches::Work),
            (1, 16, Batches::Broken),
            (0, 16, Batches::Broken),
            (1, 12, Batches::Broken),
            (14, 15, Batches::Work),
            (8, 15, Batches::Work),
            (1, 2, Batches::Untested),
            (0, 0, Batches::Untested),
        ];
        for (batched, single, verdict) in table {
            let (judged, ticks) = judge(batched, single);
            assert_eq!(judged, verdict, "{batched} batched, {single} single");
            let limit = if batched == 0 { 16 } else { 8 };
            assert!(ticks <= limit, "not {ticks} ticks");
        }
    }

    #[test]
    fn a_batch_that_was_lost_in_one_piece_is_no_proof() {
        let mut test = BatchTest::default();
        let (mut now, mut arrived, mut trains) = (start(), 0, 0);
        while test.verdict() == Batches::Untested {
            match test.poll(now, true, TRAIN_MAX) {
                Some(Step::Train { batched, .. }) => {
                    trains += u32::from(batched);
                    // Three batches meet a full queue.
                    arrived = if batched && trains <= 3 { 0 } else { TRAIN_MAX };
                }
                Some(Step::Question { id }) => test.on_report(id, arrived),
                None => {}
            }
            now += TICK;
        }
        assert_eq!((test.verdict(), trains), (Batches::Work, 4));
    }

    #[test]
    fn a_peer_that_does_not_report_is_asked_a_few_times_and_left_alone() {
        let mut test = BatchTest::default();
        let mut now = start();
        let mut steps = 0;
        for _ in 0..10 {
            steps += u32::from(test.poll(now, true, TRAIN_MAX).is_some());
            now += TICK;
        }
        assert_eq!(steps, 1 + u32::from(QUESTIONS_MAX));
        assert_eq!(test.verdict(), Batches::Untested);
    }

    #[test]
    fn a_verdict_lasts_until_the_path_changes() {
        let mut test = BatchTest::default();
        let now = start();
        assert_eq!(test.poll(now, false, TRAIN_MAX), None, "it is idle");
        assert_eq!(test.poll(now, true, 1), None, "there are no batches of one");
        let Some(Step::Train {
            id, batched: true, ..
        }) = test.poll(now, true, TRAIN_MAX)
        else {
            panic!("no train");
        };
        test.on_report(id.wrapping_add(1), TRAIN_MAX);
        test.on_report(id, TRAIN_MAX);
        assert_eq!(test.poll(now, true, TRAIN_MAX), None);
        assert_eq!(test.verdict(), Batches::Work);
        assert_eq!(test.poll(now + TICK, true, TRAIN_MAX), None);
        test.renew();
        assert!(test.poll(now + TICK, true, TRAIN_MAX).is_some());
    }

    #[test]
    fn arrivals_are_counted_once_and_per_train() {
        let mut arrivals = Arrivals::default();
        for index in [0, 3, 3, 200] {
            arrivals.note(7, index);
        }
        assert_eq!(arrivals.count(7), 2);
        assert_eq!(arrivals.count(8), 0);
        arrivals.note(8, 15);
        assert_eq!(arrivals.count(8), 1);
        assert_eq!(arrivals.count(7), 0);
    }
}
