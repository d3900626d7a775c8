//! Token buckets, each kept as the time when it is full again: no timer fills them.

use std::time::{Duration, Instant};

/// The speed at which a bucket fills, and its size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Time in which one token comes.
    pub(super) interval: Duration,
    /// Tokens in a full bucket.
    pub(super) burst: u32,
}

impl Rate {
    pub(super) const fn per_second(tokens: u32, burst: u32) -> Self {
        Self {
            interval: Duration::from_nanos(1_000_000_000 / tokens as u64),
            burst,
        }
    }
}

/// A bucket, which is full at first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TokenBucket {
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// Takes a token; false if there is none.
    pub(super) fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + rate.interval;
        let is_taken = full_at - now <= rate.interval * rate.burst;
        if is_taken {
            self.full_at = Some(full_at);
        }
        is_taken
    }

    /// True if the bucket is as good as a new one.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::clock;

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let (start, rate) = (clock(), Rate::per_second(20, 5));
        let mut bucket = TokenBucket::default();
        let taken = |bucket: &mut TokenBucket, ms| {
            let now = start + Duration::from_millis(ms);
            (0..100).filter(|_| bucket.take(now, rate)).count()
        };
        assert_eq!(taken(&mut bucket, 0), 5);
        assert_eq!(taken(&mut bucket, 49), 0);
        assert_eq!(taken(&mut bucket, 50), 1);
        assert_eq!(taken(&mut bucket, 160), 2);
        assert!(!bucket.is_full(start + Duration::from_millis(399)));
        assert!(bucket.is_full(start + Duration::from_millis(400)));
        assert_eq!(taken(&mut bucket, 10_000), 5, "it holds no more");
    }
}
