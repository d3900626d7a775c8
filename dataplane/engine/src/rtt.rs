//! Round trips to a peer, measured by tests inside the tunnel (`stamp`) that the two engines send and answer.

mod bursts;
mod counts;
mod departures;
mod histogram;
mod reflector;
mod schedule;
mod sender;
mod snapshot;
mod window;

use std::time::Instant;

pub(crate) use self::bursts::Bursts;
pub use self::bursts::{BURST_LEN, burst_duration};
pub use self::counts::Counts;
pub(crate) use self::departures::{Awaited, Departing};
pub use self::histogram::{BUCKETS_US, Histogram};
pub(crate) use self::reflector::Reflector;
pub(crate) use self::schedule::Schedule;
pub(crate) use self::sender::Sender;
pub use self::snapshot::RttSnapshot;
pub use self::window::{Sample, Summary, WINDOW_LEN, Window};

/// Our side and the peer's side of the measurement with one peer.
#[derive(Debug)]
pub(crate) struct Rtt {
    pub(crate) schedule: Schedule,
    pub(crate) sender: Sender,
    pub(crate) reflector: Reflector,
    /// Tests that are still to leave in quick succession.
    pub(crate) burst_left: u32,
}

impl Rtt {
    /// A measurement that has just begun. `random` names the session and sets its cadence apart from others'.
    pub(crate) fn new(now: Instant, random: u32) -> Self {
        Self {
            schedule: Schedule::new(now, random),
            sender: Sender::new(random as u16),
            reflector: Reflector::default(),
            burst_left: 0,
        }
    }

    /// The state at `now_ns` on the clock of the stamps.
    pub(crate) fn snapshot(&self, now_ns: u64) -> RttSnapshot {
        let mut snapshot = self.sender.snapshot(now_ns);
        snapshot.under_way += self.burst_left as usize;
        snapshot
    }
}
