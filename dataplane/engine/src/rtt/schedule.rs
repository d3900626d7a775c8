//! When to test the round trip to a peer.
//!
//! One test says whether the peer answers at all: a stock one does not. The first answer brings a burst (`bursts`), and
//! then there is one test in a while, as long as the session is in use: a test is data to WireGuard, and would keep a
//! session alive that nobody needs.

use std::time::{Duration, Instant};

/// From the beginning of a session to the first test: short exchanges cost what they cost with any WireGuard.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Between tests that nobody answers, doubled each time from [`FIRST_WAIT`] on.
const SILENT_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Tests that a peer gets although its session is not in use: the mesh is to be known before somebody needs it.
const UNUSED_MAX: u32 = 4;
/// Between two tests of a session in use.
const STEADY_INTERVAL: Duration = Duration::from_secs(5);
/// A session without traffic for so long is not in use.
const USE_LIMIT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Schedule {
    stage: Stage,
    next: Instant,
    /// How long after the first answer the first test of the steady ones comes: peers that came together are not tested
    /// together.
    phase: Duration,
    used_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody has answered so many tests.
    Unanswered(u32),
    Steady,
}

impl Schedule {
    /// That of a peer that is new. `random` sets it apart from others.
    pub(crate) fn new(now: Instant, random: u32) -> Self {
        Self {
            stage: Stage::Unanswered(0),
            next: now + FIRST_WAIT,
            phase: STEADY_INTERVAL.mul_f64(f64::from(random) / f64::from(u32::MAX)),
            used_at: None,
        }
    }

    /// True if a test is due. `used` says that there was traffic other than tests since the last call, `answered` that
    /// the peer has ever answered one.
    pub(crate) fn is_due(&mut self, now: Instant, used: bool, answered: bool) -> bool {
        if used {
            self.used_at = Some(now);
        }
        if answered && matches!(self.stage, Stage::Unanswered(_)) {
            self.stage = Stage::Steady;
            self.next = now + self.phase;
        }
        if now < self.next || !self.is_wanted(now) {
            return false;
        }
        let (stage, wait) = match self.stage {
            Stage::Unanswered(tests) => {
                let wait = FIRST_WAIT.saturating_mul(1 << tests.min(16));
                let tests = tests.saturating_add(1);
                (Stage::Unanswered(tests), wait.min(SILENT_INTERVAL_MAX))
            }
            Stage::Steady => (Stage::Steady, STEADY_INTERVAL),
        };
        self.stage = stage;
        self.next = now + wait;
        true
    }

    fn is_wanted(&self, now: Instant) -> bool {
        let used = |at| now.saturating_duration_since(at) < USE_LIMIT;
        match self.stage {
            Stage::Unanswered(..UNUSED_MAX) => true,
            Stage::Unanswered(_) | Stage::Steady => self.used_at.is_some_and(used),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    struct World {
        now: Instant,
        schedule: Schedule,
        answers: bool,
        sent: u32,
    }

    impl World {
        #[expect(clippy::disallowed_methods, reason = "a test is a driver")]
        fn new(random: u32) -> Self {
            let now = Instant::now();
            Self {
                now,
                schedule: Schedule::new(now, random),
                answers: true,
                sent: 0,
            }
        }

        /// Tests sent in `seconds` of ticks; every answer is there at the next.
        fn pass(&mut self, seconds: u32, used: impl Fn(u32) -> bool) -> u32 {
            let before = self.sent;
            for tick in 0..seconds * 10 {
                let answered = self.answers && self.sent > 0;
                self.sent += u32::from(self.schedule.is_due(self.now, used(tick), answered));
                self.now += TICK;
            }
            self.sent - before
        }
    }

    #[test]
    fn who_answers_gets_one_test_in_five_seconds_from_its_own_moment_on() {
        for (random, after_six_seconds) in [(0, 2), (u32::MAX, 1)] {
            let mut world = World::new(random);
            assert_eq!(world.pass(1, |_| true), 0);
            world.pass(5, |_| true);
            assert_eq!(world.sent, after_six_seconds);
            assert_eq!(world.pass(1000, |_| true), 200);
        }
    }

    #[test]
    fn nobody_is_kept_awake_who_is_not_used() {
        let mut world = World::new(0);
        assert_eq!(world.pass(10, |_| false), 1);
        assert_eq!(world.pass(1000, |_| false), 0);
        // One packet makes it a session in use for a minute.
        assert_eq!(world.pass(1000, |tick| tick == 0), 12);
    }

    #[test]
    fn a_silent_peer_is_asked_ever_more_rarely_and_only_while_it_is_used() {
        let mut world = World::new(0);
        world.answers = false;
        assert_eq!(world.pass(100, |_| false), UNUSED_MAX);
        world.pass(120, |_| true);
        let hour = world.pass(3600, |_| true);
        assert!((59..=61).contains(&hour), "{hour}");
        world.answers = true;
        assert!(
            world.pass(100, |_| true) >= 8,
            "it was replaced by one of ours"
        );
    }

    /// Remembers everything that ever happened, in ticks, and begins to think anew at each.
    #[derive(Default)]
    struct Twin {
        used: Vec<u64>,
        sent: Vec<u64>,
        answered: Option<u64>,
    }

    impl Twin {
        fn is_due(&mut self, tick: u64, used: bool, answered: bool, phase: u64) -> bool {
            if used {
                self.used.push(tick);
            }
            if answered {
                self.answered.get_or_insert(tick);
            }
            let is_used = self.used.iter().any(|at| tick - at < 600);
            let last = self.sent.last();
            let (due, wanted) = match self.answered {
                None => {
                    let doublings = self.sent.len().saturating_sub(1).min(10);
                    let due = last.map_or(10, |last| last + (10 << doublings).min(600));
                    (due, is_used || self.sent.len() < 4)
                }
                Some(answered) => {
                    let since = last.filter(|last| **last >= answered);
                    (since.map_or(answered + phase, |last| last + 50), is_used)
                }
            };
            let is_due = tick >= due && wanted;
            if is_due {
                self.sent.push(tick);
            }
            is_due
        }
    }

    proptest! {
        #[test]
        fn a_test_is_due_when_the_whole_history_says_so(
            uses in proptest::collection::vec(0..4_000_u64, 0..12),
            answered_after in proptest::option::of(0..3_000_u64),
            phase in 0..50_u64,
        ) {
            // Between two ticks, and so at the later one.
            let random = (f64::from(u32::MAX) * (phase as f64 + 0.5) / 50.0) as u32;
            let mut world = World::new(random);
            let mut twin = Twin::default();
            for tick in 0..4_000 {
                let used = uses.contains(&tick);
                let answered = answered_after.is_some_and(|after| tick > after) && !twin.sent.is_empty();
                let expected = twin.is_due(tick, used, answered, phase + 1);
                prop_assert_eq!(world.schedule.is_due(world.now, used, answered), expected, "tick {}", tick);
                world.now += TICK;
            }
        }
    }
}
