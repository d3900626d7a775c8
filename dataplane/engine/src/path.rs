//! The path to a peer: its MTU, and whether it takes batches.
//!
//! Both are found out with the peer's help, by messages inside the tunnel (`probe`), and only while large packets are
//! sent: a peer that gets pings gets nothing else from us. A stock peer does not answer, and nothing is assumed then.

pub(crate) mod batches;
pub(crate) mod mtu;

use std::net::SocketAddr;
use std::time::Instant;

use self::batches::{BatchTest, Batches, Step, TRAIN_MAX};
use self::mtu::{MtuSearch, Sizes};
use crate::ecn::Ecn;
use crate::message::DATA_OVERHEAD_LEN;
use crate::sink::{Departure, SendMode};

const UDP_HEADER_LEN: usize = 8;
/// The longest datagram that the driver has room for leaves space for the longer of the IP headers.
const CEILING_MAX: usize = 65_535 - 40;
/// The bytes of a batch: one IP packet of the longest kind.
const BATCH_LEN_MAX: usize = 65_000;

/// A datagram of this many bytes is worth probing for: with either IP header it is longer than what every path takes.
pub(crate) const LARGE_LEN: usize = mtu::BASE - UDP_HEADER_LEN - 20 + 1;

/// See the module.
#[derive(Debug)]
pub(crate) struct Path {
    remote: SocketAddr,
    mtu: MtuSearch,
    batches: BatchTest,
}

/// The limits of a path, for egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The longest inner packet that passes whole.
    pub(crate) inner_mtu: usize,
    /// Datagrams may leave in batches.
    pub(crate) batched: bool,
}

impl Limits {
    /// None: nothing is known.
    pub(crate) const UNKNOWN: Self = Self {
        inner_mtu: usize::MAX,
        batched: true,
    };

    /// The departure of a datagram with `ecn` on its outer header.
    pub(crate) const fn departure(self, ecn: Ecn) -> Departure {
        Departure {
            ecn,
            mode: SendMode::of_data(self.batched),
        }
    }
}

impl Path {
    /// To a peer at `remote`, through an interface with an MTU of `link_mtu` bytes.
    pub(crate) fn new(remote: SocketAddr, link_mtu: usize) -> Self {
        Self {
            remote,
            mtu: MtuSearch::new(ceiling(remote, link_mtu)),
            batches: BatchTest::default(),
        }
    }

    /// True if this is about the same path, and about packets of the same length.
    pub(crate) fn is_about(&self, remote: SocketAddr, link_mtu: usize) -> bool {
        self.remote == remote && self.mtu.ceiling() == ceiling(remote, link_mtu)
    }

    /// The path's MTU, once it is known: the length of an IP packet outside the tunnel.
    pub(crate) fn mtu(&self) -> Option<usize> {
        self.mtu.settled()
    }

    pub(crate) fn batches(&self) -> Batches {
        self.batches.verdict()
    }

    pub(crate) fn limits(&self) -> Limits {
        let limit = self.mtu().filter(|mtu| *mtu < self.mtu.ceiling());
        Limits {
            inner_mtu: limit.map_or(usize::MAX, |mtu| mtu - self.overhead_len()),
            batched: self.batches() != Batches::Broken,
        }
    }

    /// The lengths of the datagrams to probe the path with now, if it is time, and the name of their round.
    pub(crate) fn poll_mtu(&mut self, now: Instant, busy: bool) -> Option<(u16, Sizes)> {
        let former = self.mtu();
        let mut sizes = self.mtu.poll(now, busy);
        if self.mtu() < former {
            self.batches.renew();
        }
        for size in sizes.iter_mut().flatten() {
            *size -= self.header_len();
        }
        sizes.map(|sizes| (self.mtu.id(), sizes))
    }

    /// The next step of the test of batches, if there is one. None before the MTU is known: the peer answers then, and
    /// the test is about datagrams as long as those of real traffic.
    pub(crate) fn poll_batches(&mut self, now: Instant, busy: bool) -> Option<Step> {
        let datagram_len = self.train_datagram_len()?;
        let train_len = u8::try_from(BATCH_LEN_MAX / datagram_len).unwrap_or(u8::MAX);
        self.batches.poll(now, busy, train_len.min(TRAIN_MAX))
    }

    /// The length of every datagram of a train.
    pub(crate) fn train_datagram_len(&self) -> Option<usize> {
        self.mtu().map(|mtu| mtu - self.header_len())
    }

    pub(crate) fn on_answer(&mut self, now: Instant, round: u16, datagram_len: usize) {
        let size = datagram_len.saturating_add(self.header_len());
        self.mtu.on_answer(now, round, size);
    }

    pub(crate) fn on_report(&mut self, train: u16, arrived: u8) {
        self.batches.on_report(train, arrived);
    }

    /// IP and UDP header of a datagram.
    fn header_len(&self) -> usize {
        header_len(self.remote)
    }

    fn overhead_len(&self) -> usize {
        self.header_len() + DATA_OVERHEAD_LEN
    }
}

fn header_len(remote: SocketAddr) -> usize {
    UDP_HEADER_LEN + if remote.is_ipv4() { 20 } else { 40 }
}

/// The longest IP packet that comes of a packet of `link_mtu` bytes.
fn ceiling(remote: SocketAddr, link_mtu: usize) -> usize {
    let len = link_mtu.saturating_add(header_len(remote) + DATA_OVERHEAD_LEN);
    len.clamp(mtu::BASE, CEILING_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_inner_packets() {
        let (v4, v6) = (
            "192.0.2.1:1".parse().unwrap(),
            "[2001:db8::1]:1".parse().unwrap(),
        );
        for (remote, headers) in [(v4, 20 + 8 + 32), (v6, 40 + 8 + 32)] {
            let mut path = Path::new(remote, 1420);
            assert_eq!(path.limits(), Limits::UNKNOWN);
            #[expect(clippy::disallowed_methods, reason = "a test is a driver")]
            let mut now = Instant::now();
            while path.mtu().is_none() {
                let (round, lens) = path.poll_mtu(now, true).unwrap_or_default();
                let passing = lens.into_iter().filter(|len| len + headers - 32 <= 1400);
                passing.for_each(|len| path.on_answer(now, round, len));
                now += std::time::Duration::from_millis(100);
            }
            assert_eq!(path.mtu(), Some(1400));
            assert_eq!(path.limits().inner_mtu, 1400 - headers);
            assert!(path.is_about(remote, 1420) && !path.is_about(remote, 1421));
        }
    }
}
