//! A copy of what is known of the round trips to a peer.

use std::time::Duration;

use super::counts::Counts;
use super::histogram::Histogram;
use super::window::Window;

/// What is known of the round trips to a peer.
#[derive(Clone, Debug, Default)]
pub struct RttSnapshot {
    /// What became of the tests.
    pub counts: Counts,
    /// The last samples.
    pub window: Window,
    /// All samples' times in the network.
    pub histogram: Histogram,
    /// How old the last sample is.
    pub age: Option<Duration>,
    /// Tests that were asked for or sent, and may still be answered.
    pub under_way: usize,
}

impl RttSnapshot {
    /// What `count` tests have told that were asked for when `before` was all that was known. The histogram stays whole.
    pub fn since(mut self, before: &Self, count: usize) -> Self {
        let fresh = self.histogram.count() - before.histogram.count().min(self.histogram.count());
        let fresh = usize::try_from(fresh).unwrap_or(usize::MAX);
        self.window.keep_last(fresh.min(count));
        self.counts = self.counts.since(&before.counts);
        self
    }
}
