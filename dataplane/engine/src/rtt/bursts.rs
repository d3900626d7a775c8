//! Whom to test in quick succession, and when the next of these tests is due: they leave one at a time, in turns.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Tests of a burst that nobody has asked for: that of a peer which has answered for the first time.
pub const BURST_LEN: u16 = 20;
/// Between two tests to one peer: 500 a second are 0.6 Mb/s.
const INTERVAL: Duration = Duration::from_millis(2);
/// Between any two: 1,000 a second and as many replies are a few percent of a core, however many peers are tested.
const GAP_MIN: Duration = Duration::from_millis(1);

/// How long it takes about until so many tests to each of so many peers have left.
pub fn burst_duration(peers: usize, tests: u16) -> Duration {
    let turns = u32::try_from(peers).unwrap_or(u32::MAX).max(1);
    (INTERVAL / turns).max(GAP_MIN) * turns * u32::from(tests)
}

/// See the module. How many tests are left for a peer is known elsewhere.
#[derive(Debug)]
pub(crate) struct Bursts<Id> {
    /// Each of them once.
    peers: VecDeque<Id>,
    next: Option<Instant>,
}

impl<Id> Default for Bursts<Id> {
    fn default() -> Self {
        Self {
            peers: VecDeque::new(),
            next: None,
        }
    }
}

impl<Id: Copy + PartialEq> Bursts<Id> {
    /// Tests this peer as well.
    pub(crate) fn add(&mut self, now: Instant, peer: Id) {
        if self.peers.is_empty() {
            self.next = Some(now.max(self.next.unwrap_or(now)));
        }
        if !self.peers.contains(&peer) {
            self.peers.push_back(peer);
        }
    }

    /// The peer that is due. It has no further turn unless it is added again.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Id> {
        self.poll_timeout().filter(|due| *due <= now)?;
        let turns = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        // From now on: who was kept waiting does not make up for it.
        self.next = Some(now + (INTERVAL / turns).max(GAP_MIN));
        self.peers.pop_front()
    }

    /// When one is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.next.filter(|_| !self.peers.is_empty())
    }

    /// The peer is gone, and its id may name another.
    pub(crate) fn forget(&mut self, peer: Id) {
        self.peers.retain(|it| *it != peer);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test is a driver")]
    fn begin() -> Instant {
        Instant::now()
    }

    /// What leaves when a driver wakes at the deadlines alone: each peer wants `left` tests.
    fn run(left: &[u32]) -> Vec<(Duration, usize)> {
        let begin = begin();
        let mut left = left.to_vec();
        let mut bursts = Bursts::default();
        for (peer, wanted) in left.iter().enumerate() {
            if *wanted > 0 {
                bursts.add(begin, peer);
            }
        }
        let mut sent = Vec::new();
        while let Some(now) = bursts.poll_timeout() {
            let peer = bursts.take(now).unwrap();
            sent.push((now - begin, peer));
            left[peer] -= 1;
            if left[peer] > 0 {
                bursts.add(now, peer);
            }
        }
        sent
    }

    #[test]
    fn one_peer_is_tested_every_two_milliseconds() {
        let times: Vec<Duration> = run(&[4]).iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 2, 4, 6].map(Duration::from_millis));
    }

    #[test]
    fn how_long_it_takes() {
        for (peers, seconds) in [(0, 1.0), (1, 1.0), (2, 1.0), (200, 100.0)] {
            assert_eq!(burst_duration(peers, 500).as_secs_f64(), seconds, "{peers}");
        }
    }

    #[test]
    fn a_peer_that_is_gone_is_nobody() {
        let now = begin();
        let mut bursts = Bursts::default();
        bursts.add(now, 0);
        bursts.forget(0);
        assert_eq!((bursts.take(now), bursts.poll_timeout()), (None, None));
    }

    #[test]
    fn who_asks_again_and_again_gets_no_more() {
        let begin = begin();
        let mut bursts = Bursts::default();
        let mut sent = 0;
        for us in 0..100_000 {
            let now = begin + Duration::from_micros(us);
            bursts.add(now, 0);
            sent += u32::from(bursts.take(now).is_some());
        }
        assert_eq!(sent, 50);
    }

    proptest! {
        /// The twin goes around the peers that still want something.
        #[test]
        fn peers_take_turns_at_a_bounded_rate(left in proptest::collection::vec(0..6_u32, 1..12)) {
            let sent = run(&left);
            let mut twin = Vec::new();
            for round in 0..6 {
                twin.extend((0..left.len()).filter(|peer| left[*peer] > round));
            }
            prop_assert_eq!(sent.iter().map(|(_, peer)| *peer).collect::<Vec<_>>(), twin);
            for pair in sent.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= GAP_MIN);
            }
            for peer in 0..left.len() {
                let own: Vec<_> = sent.iter().filter(|it| it.1 == peer).map(|it| it.0).collect();
                // Within a turn of each: when a peer drops out, the turns become shorter.
                prop_assert!(own.windows(2).all(|pair| pair[1] - pair[0] >= GAP_MIN));
            }
        }
    }
}
