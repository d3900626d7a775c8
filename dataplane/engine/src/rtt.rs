//! Round trips to a peer, measured by tests inside the tunnel (`stamp`) that the two engines send and answer.

mod bursts;
mod histogram;
mod reflector;
mod schedule;
mod sender;
mod window;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub(crate) use self::bursts::Bursts;
pub use self::bursts::{BURST_LEN, burst_duration};
pub use self::histogram::{BUCKETS_US, Histogram};
pub(crate) use self::reflector::Reflector;
pub(crate) use self::schedule::Schedule;
pub use self::sender::Counts;
pub(crate) use self::sender::Sender;
pub use self::window::{Sample, Summary, WINDOW_LEN, Window};
use crate::peer::PeerId;

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
    /// One that has just begun. `random` names the session and sets its cadence apart from others'.
    pub(crate) fn new(now: Instant, random: u32) -> Self {
        Self {
            schedule: Schedule::new(now, random),
            sender: Sender::new(random as u16),
            reflector: Reflector::default(),
            burst_left: 0,
        }
    }

    /// What is known at `now_ns` on the clock of the stamps.
    pub(crate) fn snapshot(&self, now_ns: u64) -> RttSnapshot {
        let mut snapshot = self.sender.snapshot(now_ns);
        snapshot.under_way += self.burst_left as usize;
        snapshot
    }
}

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
    /// What `count` tests have told that were asked for when `before` was all that was known. The histogram stays
    /// whole.
    pub fn since(mut self, before: &Self, count: usize) -> Self {
        let fresh = self.histogram.count() - before.histogram.count().min(self.histogram.count());
        let fresh = usize::try_from(fresh).unwrap_or(usize::MAX);
        self.window.keep_last(fresh.min(count));
        self.counts = self.counts.since(&before.counts);
        self
    }
}

/// Stamps that may be awaited at a time: those of a burst to every one of a dozen peers.
const AWAITED_MAX: usize = 256;

/// Datagrams whose departure the kernel stamps, until it has.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    next_token: u32,
    departures: VecDeque<(u32, Departing)>,
}

/// Which datagram departs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departing {
    Test { peer: PeerId, sequence: u32 },
    Reply { peer: PeerId, sequence: u32 },
}

impl Departing {
    const fn peer(self) -> PeerId {
        match self {
            Self::Test { peer, .. } | Self::Reply { peer, .. } => peer,
        }
    }
}

impl Awaited {
    /// A token for a datagram that departs now. The oldest stamp is given up if too many are awaited.
    pub(crate) fn expect(&mut self, departing: Departing) -> u32 {
        if self.departures.len() == AWAITED_MAX {
            self.departures.pop_front();
        }
        let token = self.next_token;
        self.next_token = token.wrapping_add(1);
        self.departures.push_back((token, departing));
        token
    }

    /// What a token stands for; once.
    pub(crate) fn take(&mut self, token: u32) -> Option<Departing> {
        let at = self.departures.iter().position(|(it, _)| *it == token)?;
        self.departures.remove(at).map(|(_, departing)| departing)
    }

    /// The peer is gone, and its id may name another.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.departures.retain(|(_, it)| it.peer() != peer);
    }
}
