//! All round trips since the session began, by their length: what a scraper adds up over time and machines.

use std::time::Duration;

/// Upper bounds of the buckets in microseconds: 1, 2, 5 and so on from a data centre to the other side of the earth.
pub const BUCKETS_US: [u64; 15] = [
    20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000,
];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Those of each bucket, and last those beyond.
    counts: [u64; BUCKETS_US.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// Counts a round trip.
    pub(crate) fn record(&mut self, time: Duration) {
        let bucket = BUCKETS_US.partition_point(|bound| Duration::from_micros(*bound) < time);
        self.counts[bucket] += 1;
        self.sum += time;
    }

    /// How many were at most as long as each bound of [`BUCKETS_US`], and how many there are.
    pub fn cumulative(&self) -> [u64; BUCKETS_US.len() + 1] {
        let mut total = 0;
        self.counts.map(|count| {
            total += count;
            total
        })
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them, end to end.
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut histogram = Histogram::default();
        for us in [20, 21, 50, 1_000_000, 1_000_001] {
            histogram.record(Duration::from_micros(us));
        }
        let cumulative = histogram.cumulative();
        assert_eq!(cumulative[..3], [1, 3, 3]);
        assert_eq!(cumulative[BUCKETS_US.len() - 1..], [4, 5]);
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), Duration::from_micros(2_000_092));
    }
}
