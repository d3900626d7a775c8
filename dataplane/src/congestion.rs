//! Tells senders early that we cannot keep up.
//!
//! Under load the standing queue of a tunnel is the receiver's socket buffer, and TCP fills whatever there is: that is
//! the latency of everything else that passes. The buffer has to be long all the same, for the moments in which another
//! program has the processor, and when it overflows whole batches are lost. So, well before that, one datagram of a
//! bulk sender is marked as having met congestion, now and then, as a router with active queue management does (RFC
//! 7567). The engine's decapsulation passes the mark on to packets that are capable of ECN, and drops one that is not
//! (RFC 6040): TCP slows down for the price of one segment.

use std::time::{Duration, Instant};

/// Bytes in the socket, as the kernel counts them, that are more than scheduling explains: at 5 Gb/s, 2 ms.
const BACKLOG_MAX: usize = 1280 << 10;
/// Between two marks: several round trips of a path on which such a rate is possible, so that a sender has reacted to
/// the first before it gets the second.
const INTERVAL: Duration = Duration::from_millis(5);

/// When the last mark was given.
#[derive(Debug, Default)]
pub(crate) struct Congestion {
    last: Option<Instant>,
}

impl Congestion {
    /// True if a datagram should be marked now. `backlog` tells how many bytes wait, and is asked only if it matters.
    pub(crate) fn marks(&mut self, now: Instant, backlog: impl FnOnce() -> usize) -> bool {
        let rests = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < INTERVAL);
        if rests || backlog() <= BACKLOG_MAX {
            return false;
        }
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mark_an_interval_while_too_much_waits() {
        #[expect(clippy::disallowed_methods, reason = "a test is a driver")]
        let start = Instant::now();
        let mut congestion = Congestion::default();
        let full = || BACKLOG_MAX + 1;
        assert!(!congestion.marks(start, || BACKLOG_MAX));
        assert!(congestion.marks(start, full));
        let soon = start + INTERVAL / 2;
        assert!(!congestion.marks(soon, || unreachable!("it is too soon to ask")));
        assert!(!congestion.marks(start + INTERVAL, || 0));
        assert!(congestion.marks(start + INTERVAL, full));
    }
}
