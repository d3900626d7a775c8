//! Which of a peer's endpoints is tried.
//!
//! A machine can have several addresses, of which only some are reached from here. The first one is tried first; while
//! there is no session, the others take their turns, round and round.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ployz_engine::{PeerUpdate, PublicKey};

use crate::peers::PeerPlan;

/// WireGuard repeats a handshake every 5 s: each endpoint gets two.
const ATTEMPT_SPAN: Duration = Duration::from_secs(10);

/// The attempts of all peers.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    peers: BTreeMap<PublicKey, Attempt>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    /// Of the peer's list.
    index: usize,
    since: Instant,
}

impl Attempts {
    /// Learns with whom there is a session, and says whom to try elsewhere.
    pub(crate) fn handle_sessions(
        &mut self,
        plan: &BTreeMap<PublicKey, PeerPlan>,
        sessions: &BTreeMap<PublicKey, SocketAddr>,
        now: Instant,
    ) -> Vec<PeerUpdate> {
        self.peers.retain(|key, _| plan.contains_key(key));
        let mut updates = Vec::new();
        for (key, peer) in plan {
            let attempt = self.peers.entry(*key).or_insert(Attempt {
                index: 0,
                since: now,
            });
            if sessions.contains_key(key) {
                attempt.since = now;
            } else if now.saturating_duration_since(attempt.since) >= ATTEMPT_SPAN {
                attempt.since = now;
                updates.extend(attempt.next(*key, &peer.endpoints));
            }
        }
        updates
    }

    /// A peer's endpoints are other ones: they are tried from the first one on.
    pub(crate) fn restart(&mut self, key: &PublicKey) {
        self.peers.remove(key);
    }
}

impl Attempt {
    fn next(&mut self, key: PublicKey, endpoints: &[SocketAddr]) -> Option<PeerUpdate> {
        // With one there is nowhere else to look, unless the peer has roamed since and is not there any more.
        self.index = (self.index + 1).checked_rem(endpoints.len())?;
        Some(PeerUpdate {
            update_only: true,
            endpoint: Some(endpoints[self.index]),
            ..PeerUpdate::new(key)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> PublicKey {
        PublicKey::from_bytes([number; 32])
    }

    fn plan(peers: &[(u8, usize)]) -> BTreeMap<PublicKey, PeerPlan> {
        let endpoint = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let peer = |count| PeerPlan {
            endpoints: (1_u16..).map(endpoint).take(count).collect(),
            allowed_ips: Vec::new(),
        };
        peers
            .iter()
            .map(|(number, count)| (key(*number), peer(*count)))
            .collect()
    }

    fn ports(updates: &[PeerUpdate]) -> Vec<(PublicKey, u16)> {
        let port = |update: &PeerUpdate| update.endpoint.map(|it| (update.public_key, it.port()));
        updates.iter().filter_map(port).collect()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant does to count from")]
    fn endpoints_take_turns_until_there_is_a_session() {
        let plan = plan(&[(1, 3), (2, 1), (3, 2)]);
        let mut attempts = Attempts::default();
        let begin = Instant::now();
        let third_talks = BTreeMap::from([(key(3), SocketAddr::from(([192, 0, 2, 1], 1)))]);
        let mut tried = Vec::new();
        for round in 0..5 {
            let now = begin + ATTEMPT_SPAN * round;
            tried.extend(ports(&attempts.handle_sessions(&plan, &third_talks, now)));
            let soon = now + ATTEMPT_SPAN / 2;
            let early = attempts.handle_sessions(&plan, &third_talks, soon);
            assert!(early.is_empty(), "before the span is over");
        }
        let of = |number| tried.iter().filter(move |(it, _)| *it == key(number));
        assert_eq!(
            of(1).map(|(_, port)| *port).collect::<Vec<_>>(),
            [2, 3, 1, 2]
        );
        assert_eq!(of(2).map(|(_, port)| *port).collect::<Vec<_>>(), [1; 4]);
        assert_eq!(of(3).count(), 0);
        // One that falls silent is tried elsewhere after a whole span, and one whose endpoints change from the first
        // on.
        let silent = begin + ATTEMPT_SPAN * 5;
        attempts.restart(&key(1));
        let none = BTreeMap::new();
        let tried = attempts.handle_sessions(&plan, &none, silent);
        assert_eq!(
            ports(&tried),
            [(key(2), 1)],
            "the third spoke half a span ago"
        );
        let tried = attempts.handle_sessions(&plan, &none, silent + ATTEMPT_SPAN);
        assert_eq!(ports(&tried), [(key(1), 2), (key(2), 1), (key(3), 2)]);
    }
}
