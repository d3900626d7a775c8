//! When a workload is started, and when again.
//!
//! ```text
//!   Starting ──▶ Running ──▶ Exited          it ended well: it stays so
//!      ▲            │
//!      └─ Waiting ◀─┘ it failed, or is gone: 1 s at first, twice as long each time, a minute at most
//! ```

use std::time::{Duration, Instant};

use ployz_api::WorkloadState;

/// The first wait after a failure, and the longest.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// An instance that has run for so long has not failed at once.
const STEADY: Duration = Duration::from_secs(60);

/// The observed state of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// No process, and no word of one.
    Nothing,
    /// The instance is running.
    Running,
    /// The instance has ended with success.
    Succeeded,
    /// The instance has ended with a failure.
    Failed,
}

/// An instance under the supervision of its machine.
#[derive(Debug, Default)]
pub struct Supervision {
    running_since: Option<Instant>,
    failures: u32,
    retry_at: Option<Instant>,
}

impl Supervision {
    /// Takes an observation; returns the state to show, and whether to start the instance now. A start that fails is
    /// reported as [`Seen::Failed`].
    pub fn handle(&mut self, seen: Seen, now: Instant) -> (WorkloadState, bool) {
        match seen {
            Seen::Running => {
                let since = *self.running_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= STEADY {
                    self.failures = 0;
                }
                self.retry_at = None;
                (WorkloadState::Running, false)
            }
            Seen::Succeeded => (WorkloadState::Exited, false),
            Seen::Nothing if self.running_since.is_none() && self.retry_at.is_none() => {
                (WorkloadState::Starting, true)
            }
            Seen::Nothing | Seen::Failed => self.failed(now),
        }
    }

    fn failed(&mut self, now: Instant) -> (WorkloadState, bool) {
        self.running_since = None;
        let retry_at = *self.retry_at.get_or_insert_with(|| {
            let doublings = self.failures.min(WAIT_MAX.as_secs().ilog2() + 1);
            self.failures = self.failures.saturating_add(1);
            now + (WAIT_MIN * 2_u32.pow(doublings)).min(WAIT_MAX)
        });
        if now < retry_at {
            return (WorkloadState::Waiting, false);
        }
        self.retry_at = None;
        (WorkloadState::Starting, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a beginning to count from")]
    fn begin() -> Instant {
        Instant::now()
    }

    #[test]
    fn what_fails_again_and_again_waits_longer_each_time() {
        let (mut it, mut now) = (Supervision::default(), begin());
        assert_eq!(
            it.handle(Seen::Nothing, now),
            (WorkloadState::Starting, true)
        );
        for secs in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(
                it.handle(Seen::Running, now),
                (WorkloadState::Running, false)
            );
            assert_eq!(
                it.handle(Seen::Failed, now),
                (WorkloadState::Waiting, false)
            );
            now += Duration::from_secs(secs);
            let just_before = now.checked_sub(Duration::from_millis(1)).unwrap();
            assert_eq!(
                it.handle(Seen::Failed, just_before),
                (WorkloadState::Waiting, false)
            );
            assert_eq!(
                it.handle(Seen::Failed, now),
                (WorkloadState::Starting, true)
            );
        }
        it.handle(Seen::Running, now);
        now += STEADY;
        it.handle(Seen::Running, now);
        assert_eq!(
            it.handle(Seen::Nothing, now),
            (WorkloadState::Waiting, false)
        );
        now += WAIT_MIN;
        assert_eq!(
            it.handle(Seen::Nothing, now),
            (WorkloadState::Starting, true)
        );
    }

    #[test]
    fn what_ended_well_stays_ended() {
        let (mut it, now) = (Supervision::default(), begin());
        it.handle(Seen::Running, now);
        for _ in 0..3 {
            assert_eq!(
                it.handle(Seen::Succeeded, now),
                (WorkloadState::Exited, false)
            );
        }
    }
}
