//! Datagrams whose departure the kernel stamps: a token goes out with each, and comes back with the stamp.

use std::collections::VecDeque;

use crate::peer_id::PeerId;

/// Stamps that may be awaited at a time: those of a burst to every one of a dozen peers.
const AWAITED_MAX: usize = 256;

/// Datagrams whose departure the kernel stamps, until it has.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    next_token: u32,
    departures: VecDeque<(u32, Departing)>,
}

/// The datagram that departs.
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

    /// The datagram that a token stands for; once.
    pub(crate) fn take(&mut self, token: u32) -> Option<Departing> {
        let at = self.departures.iter().position(|(it, _)| *it == token)?;
        self.departures.remove(at).map(|(_, departing)| departing)
    }

    /// The peer is gone, and its id may name another.
    pub(crate) fn forget(&mut self, peer: PeerId) {
        self.departures.retain(|(_, it)| it.peer() != peer);
    }
}
