//! Counts of the tests that were sent, answered and lost.

/// The outcomes of the tests, since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests sent.
    pub sent: u64,
    /// Tests answered in time.
    pub answered: u64,
    /// Tests that did not reach the peer, as far as a later reply tells.
    pub lost_forward: u64,
    /// Replies that did not reach us, as far as a later reply tells.
    pub lost_reverse: u64,
    /// Tests that arrived at the peer behind a later one.
    pub reordered_forward: u64,
    /// Replies that arrived behind a later one.
    pub reordered_reverse: u64,
    /// Replies that came after two seconds.
    pub late: u64,
    /// Second replies to a test.
    pub duplicates: u64,
    /// Replies to what was never sent.
    pub forged: u64,
    /// Samples for which the processes at both ends took 50 ms and more: one of them, or its machine, stood still.
    pub stalls: u64,
}

impl Counts {
    /// The counts that have been added since `before`.
    pub(crate) const fn since(&self, before: &Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            answered: self.answered.saturating_sub(before.answered),
            lost_forward: self.lost_forward.saturating_sub(before.lost_forward),
            lost_reverse: self.lost_reverse.saturating_sub(before.lost_reverse),
            reordered_forward: self
                .reordered_forward
                .saturating_sub(before.reordered_forward),
            reordered_reverse: self
                .reordered_reverse
                .saturating_sub(before.reordered_reverse),
            late: self.late.saturating_sub(before.late),
            duplicates: self.duplicates.saturating_sub(before.duplicates),
            forged: self.forged.saturating_sub(before.forged),
            stalls: self.stalls.saturating_sub(before.stalls),
        }
    }
}
