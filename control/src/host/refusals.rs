//! What was refused, by cause: counted always, logged at most once a second for each cause.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// A flood must not become a flood of lines; the count is in each of them.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Cause {
    count: u64,
    logged: Instant,
}

/// Refusals of one daemon since it started.
#[derive(Debug, Default)]
pub(crate) struct Refusals(RefCell<BTreeMap<String, Cause>>);

impl Refusals {
    /// One more for this cause; how many there are, if it is time to log it.
    fn count(&self, cause: &str, now: Instant) -> Option<u64> {
        let mut causes = self.0.borrow_mut();
        let Some(known) = causes.get_mut(cause) else {
            let first = Cause {
                count: 1,
                logged: now,
            };
            causes.insert(cause.to_owned(), first);
            return Some(1);
        };
        known.count += 1;
        if now.saturating_duration_since(known.logged) < LOG_INTERVAL {
            return None;
        }
        known.logged = now;
        Some(known.count)
    }

    /// Somebody was refused. Causes are ours: there are no more of them than the code has.
    pub(crate) fn note(&self, cause: &str, who: impl Display, why: impl Display, now: Instant) {
        if let Some(count) = self.count(cause, now) {
            tracing::info!(cause, count, %who, %why, "refused");
        }
    }

    /// How many there were, by cause.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let causes = self.0.borrow();
        causes
            .iter()
            .map(|(cause, known)| (cause.clone(), known.count))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock;

    #[test]
    fn everything_is_counted_and_little_is_logged() {
        let (refusals, now) = (Refusals::default(), clock::now().instant);
        assert_eq!(refusals.count("a", now), Some(1));
        for _ in 0..9 {
            assert_eq!(refusals.count("a", now), None);
        }
        assert_eq!(refusals.count("b", now), Some(1));
        assert_eq!(refusals.count("a", now + LOG_INTERVAL), Some(11));
        let counts = refusals.counts();
        assert_eq!((counts["a"], counts["b"]), (11, 1));
    }
}
