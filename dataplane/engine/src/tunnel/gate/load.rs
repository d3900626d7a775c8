//! Load: more handshake messages arrive than are worth an answer each.

use std::time::{Duration, Instant};

use super::token_bucket::{Rate, TokenBucket};

/// Messages a second that are taken without a cookie. Each costs the responder four scalar multiplications of about 40
/// us, so this is a tenth of a core. A burst is a second's worth: the peers of a hub that starts again.
const RATE: Rate = Rate::per_second(500, 500);
/// Load lasts so long after the last message that was too many, as in the kernel: the first messages of every second of
/// a flood do not get through.
const LINGER: Duration = Duration::from_secs(1);

/// Tells load from the messages whose first MAC is right. Those that are repeated cost nothing and do not count.
#[derive(Debug, Default)]
pub(super) struct Load {
    budget: TokenBucket,
    lasts_until: Option<Instant>,
}

impl Load {
    /// Counts a message; true if there is load.
    pub(super) fn note(&mut self, now: Instant) -> bool {
        if !self.budget.take(now, RATE) {
            self.lasts_until = Some(now + LINGER);
        }
        self.lasts_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::clock;

    /// How many of `per_second` messages in each of `seconds` are taken without load, from `start` on.
    fn taken(load: &mut Load, start: Instant, seconds: u32, per_second: u32) -> Vec<usize> {
        let of_second = |second: u32| {
            let at = |n| {
                start + Duration::from_secs(second.into()) + Duration::from_secs(1) * n / per_second
            };
            (0..per_second).filter(|n| !load.note(at(*n))).count()
        };
        (0..seconds).map(of_second).collect()
    }

    #[test]
    fn what_can_be_computed_is_no_load() {
        assert_eq!(taken(&mut Load::default(), clock(), 3, 500), [500; 3]);
    }

    #[test]
    fn load_lasts_as_long_as_the_flood_and_a_second() {
        let (mut load, start) = (Load::default(), clock());
        let in_flood = taken(&mut load, start, 5, 5_000);
        assert!((500..600).contains(&in_flood[0]), "{in_flood:?}");
        assert_eq!(in_flood[1..], [0; 4]);
        let later = start + Duration::from_secs(5);
        assert!(load.note(later), "a moment after");
        assert!(!load.note(later + LINGER), "and no longer");
    }
}
