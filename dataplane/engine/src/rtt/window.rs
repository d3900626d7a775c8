//! The last round trips to a peer, and what they come to.

use std::collections::VecDeque;
use std::time::Duration;

use crate::stamp::Stamper;

/// Samples kept: all of them are sorted for a summary, and a window of every peer is copied with a snapshot.
pub const WINDOW_LEN: usize = 256;

/// One round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Between the two machines' network drivers: (T4 - T1) - (T3 - T2).
    pub network: Duration,
    /// From the send call to the hands of this process, the peer's own time included.
    pub tunnel: Duration,
    /// Who took the four stamps of `network`: the kernel if it took all of them.
    pub by: Stamper,
}

/// The last [`WINDOW_LEN`] samples, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Window {
    samples: VecDeque<Sample>,
}

/// What a number of durations come to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// The least.
    pub min: Duration,
    /// Nearest-rank percentiles.
    pub p50: Duration,
    /// See `p50`.
    pub p90: Duration,
    /// See `p50`.
    pub p99: Duration,
    /// The most.
    pub max: Duration,
    /// Of the population, around its mean.
    pub standard_deviation: Duration,
    /// The mean of what successive ones differ by, without sign (RFC 3393, section 4.5).
    pub jitter: Duration,
}

impl Window {
    /// Adds a sample; the oldest goes if there are too many.
    pub fn push(&mut self, sample: Sample) {
        if self.samples.len() == WINDOW_LEN {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Forgets all but the last `count`.
    pub(crate) fn keep_last(&mut self, count: usize) {
        let old = self.samples.len().saturating_sub(count);
        self.samples.drain(..old);
    }

    /// The samples, the oldest first.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = &Sample> {
        self.samples.iter()
    }

    /// Of the times in the network; `None` without samples.
    pub fn network(&self) -> Option<Summary> {
        Summary::of(self.samples().map(|sample| sample.network).collect())
    }

    /// Of the times through the tunnel; `None` without samples.
    pub fn tunnel(&self) -> Option<Summary> {
        Summary::of(self.samples().map(|sample| sample.tunnel).collect())
    }

    /// Who took the stamps: the kernel if it took those of every sample.
    pub fn by(&self) -> Stamper {
        if self.samples().all(|sample| sample.by == Stamper::Kernel) {
            Stamper::Kernel
        } else {
            Stamper::User
        }
    }
}

impl Summary {
    fn of(mut durations: Vec<Duration>) -> Option<Self> {
        let count = u32::try_from(durations.len()).ok()?;
        let mean = durations.iter().sum::<Duration>().checked_div(count)?;
        let variance = durations
            .iter()
            .map(|it| it.abs_diff(mean).as_secs_f64().powi(2))
            .sum::<f64>()
            / f64::from(count);
        let steps = durations.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
        let jitter = steps.sum::<Duration>() / (count - 1).max(1);
        durations.sort_unstable();
        let percentile = |percent: usize| durations[(durations.len() * percent).div_ceil(100) - 1];
        Some(Self {
            min: durations[0],
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
            max: durations[durations.len() - 1],
            standard_deviation: Duration::from_secs_f64(variance.sqrt()),
            jitter,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(ns: u64) -> Sample {
        Sample {
            network: Duration::from_nanos(ns),
            tunnel: Duration::from_nanos(ns * 2),
            by: Stamper::Kernel,
        }
    }

    fn window(all: &[u64]) -> Window {
        let mut window = Window::default();
        all.iter().for_each(|ns| window.push(sample(*ns)));
        window
    }

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(Window::default().network(), None);
    }

    #[test]
    fn a_summary_worked_out_by_hand() {
        // Mean 5, squares 16 + 4 + 0 + 4 + 16 = 40, of five 8; steps 4, 6, 4, 6.
        let summary = window(&[9, 5, 1, 7, 3]).network().unwrap();
        let ns = Duration::from_nanos;
        assert_eq!(
            (
                summary.min,
                summary.p50,
                summary.p90,
                summary.p99,
                summary.max
            ),
            (ns(1), ns(5), ns(9), ns(9), ns(9))
        );
        assert_eq!(summary.standard_deviation, ns(3));
        assert_eq!(summary.jitter, ns(4));
        let tunnel = window(&[9, 5, 1, 7, 3]).tunnel().unwrap();
        assert_eq!(tunnel.p50, ns(10));
    }

    #[test]
    fn one_stamp_of_the_process_is_enough_to_say_so() {
        let mut window = window(&[1, 2]);
        assert_eq!(window.by(), Stamper::Kernel);
        window.push(Sample {
            by: Stamper::User,
            ..sample(3)
        });
        assert_eq!(window.by(), Stamper::User);
    }

    proptest! {
        /// The twin counts: a percentile is the least value that so many are not above.
        #[test]
        fn percentiles_are_what_counting_says(all in proptest::collection::vec(0..5_000_u64, 1..600)) {
            let kept = &all[all.len().saturating_sub(WINDOW_LEN)..];
            let summary = window(&all).network().unwrap();
            for (percent, value) in [(50, summary.p50), (90, summary.p90), (99, summary.p99), (100, summary.max)] {
                let at_most = |limit: u64| kept.iter().filter(|ns| **ns <= limit).count();
                let least = kept.iter().copied().filter(|ns| at_most(*ns) * 100 >= kept.len() * percent).min();
                prop_assert_eq!(Some(value), least.map(Duration::from_nanos));
            }
            prop_assert_eq!(Some(summary.min), kept.iter().min().map(|ns| Duration::from_nanos(*ns)));
        }

        /// The twin computes in one long sum of squares, and of steps.
        #[test]
        fn deviation_and_jitter_are_what_the_textbook_says(all in proptest::collection::vec(0..5_000_000_u64, 2..600)) {
            let kept: Vec<f64> = all[all.len().saturating_sub(WINDOW_LEN)..].iter().map(|ns| *ns as f64).collect();
            let count = kept.len() as f64;
            let mean = kept.iter().sum::<f64>() / count;
            let deviation = (kept.iter().map(|ns| ns * ns).sum::<f64>() / count - mean * mean).max(0.0).sqrt();
            let steps: f64 = kept.windows(2).map(|pair| (pair[1] - pair[0]).abs()).sum();
            let summary = window(&all).network().unwrap();
            let ns = |time: Duration| time.as_nanos() as f64;
            prop_assert!((ns(summary.standard_deviation) - deviation).abs() <= 2.0);
            prop_assert!((ns(summary.jitter) - steps / (count - 1.0)).abs() <= 1.0);
        }

        /// The twin is a list that only grows.
        #[test]
        fn the_last_are_kept(all in proptest::collection::vec(0..5_000_u64, 0..600), count in 0..300_usize) {
            let mut window = window(&all);
            window.keep_last(count);
            let last = &all[all.len().saturating_sub(count.min(WINDOW_LEN))..];
            let kept: Vec<Sample> = window.samples().copied().collect();
            prop_assert_eq!(kept, last.iter().map(|ns| sample(*ns)).collect::<Vec<_>>());
        }
    }
}
