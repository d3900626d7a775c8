//! A copy of what is known of the round trips to a peer.

use std::time::Duration;

use super::counts::Counts;
use super::histogram::Histogram;
use super::window::Window;

/// The round trips to a peer.
#[derive(Clone, Debug, Default)]
pub struct RttSnapshot {
    /// The outcomes of the tests.
    pub counts: Counts,
    /// The last samples.
    pub window: Window,
    /// All samples' times in the network.
    pub histogram: Histogram,
    /// The age of the last sample.
    pub age: Option<Duration>,
    /// Tests that were asked for or sent, and may still be answered.
    pub under_way: usize,
}

impl RttSnapshot {
    /// The results of `count` tests that were asked for at the time of `before`. The histogram stays whole.
    pub fn since(mut self, before: &Self, count: usize) -> Self {
        let fresh = self.histogram.count() - before.histogram.count().min(self.histogram.count());
        let fresh = usize::try_from(fresh).unwrap_or(usize::MAX);
        self.window.keep_last(fresh.min(count));
        self.counts = self.counts.since(&before.counts);
        self
    }
}
