//! Refused connections and requests: each is counted, and each cause is logged at most once a second.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use ployz_api::text;

/// A flood of requests must not become a flood of log lines; each line has the count.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// What is logged of a client and of the cause: a sentence each.
const LOGGED_LEN_MAX: usize = 256;

#[derive(Debug)]
struct Cause {
    count: u64,
    logged: Instant,
}

/// Refusals of one daemon since it started.
#[derive(Debug, Default)]
pub(crate) struct Refusals(RefCell<BTreeMap<String, Cause>>);

impl Refusals {
    /// Counts a refusal; returns the count if it is time to log this cause.
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

    /// Counts and logs a refusal. Causes are constants of the code, so their number is bounded.
    pub(crate) fn note(&self, cause: &str, who: impl Display, why: impl Display, now: Instant) {
        if let Some(count) = self.count(cause, now) {
            // A client that was refused may have chosen the words.
            let (who, why) = (logged(who), logged(why));
            tracing::info!(cause, count, who, why, "refused");
        }
    }

    /// The number of refusals, by cause.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let causes = self.0.borrow();
        causes
            .iter()
            .map(|(cause, known)| (cause.clone(), known.count))
            .collect()
    }
}

fn logged(text: impl Display) -> String {
    text::bounded(&text.to_string(), LOGGED_LEN_MAX)
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
