//! The peer's side of the measurement: a reply to every test, and when replies before it really left.

use std::collections::VecDeque;

use crate::stamp::{FollowUp, Reply, Stamp, Test};

/// See the module. Stateful (RFC 8762, section 4.3): it counts what it answers.
#[derive(Debug, Default)]
pub(crate) struct Reflector {
    session: Option<u16>,
    next_sequence: u32,
    /// Replies whose departure is known and was not told, the oldest first.
    departed: VecDeque<FollowUp>,
}

/// Replies of one busy turn, after which there are two departures told for each that becomes known.
const DEPARTED_MAX: usize = 64;

impl Reflector {
    /// The reply to a test that arrived at `received`, written at `now_ns`.
    pub(crate) fn reflect(&mut self, test: Test, received: Stamp, now_ns: u64) -> Reply {
        if self.session != Some(test.session) {
            *self = Self {
                session: Some(test.session),
                ..Self::default()
            };
        }
        let reply = Reply {
            sequence: self.next_sequence,
            test,
            received,
            sent_ns: now_ns,
            follow_ups: [self.departed.pop_front(), self.departed.pop_front()],
        };
        self.next_sequence = self.next_sequence.wrapping_add(1);
        reply
    }

    /// The kernel says when a reply left.
    pub(crate) fn left(&mut self, sequence: u32, at_ns: u64) {
        if sequence >= self.next_sequence {
            return;
        }
        if self.departed.len() == DEPARTED_MAX {
            self.departed.pop_front();
        }
        self.departed.push_back(FollowUp {
            sequence,
            sent_ns: at_ns,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Stamper;

    const RECEIVED: Stamp = Stamp {
        ns: 5,
        by: Stamper::Kernel,
    };

    fn test(session: u16, sequence: u32) -> Test {
        Test {
            sequence,
            session,
            sent_ns: 1,
        }
    }

    fn left(sequence: u32, sent_ns: u64) -> Option<FollowUp> {
        Some(FollowUp { sequence, sent_ns })
    }

    #[test]
    fn a_reply_tells_when_those_before_it_left() {
        let mut reflector = Reflector::default();
        assert_eq!(
            reflector.reflect(test(1, 10), RECEIVED, 6).follow_ups,
            [None; 2]
        );
        reflector.left(0, 7);
        let second = reflector.reflect(test(1, 12), RECEIVED, 8);
        assert_eq!(
            (second.sequence, second.follow_ups),
            (1, [left(0, 7), None])
        );
        // In one turn, after which the kernel says of all of them when they left.
        (13..16).for_each(|sequence| {
            reflector.reflect(test(1, sequence), RECEIVED, 9);
        });
        (1..5).for_each(|sequence| reflector.left(sequence, 10 + u64::from(sequence)));
        let next = reflector.reflect(test(1, 16), RECEIVED, 20);
        assert_eq!(next.follow_ups, [left(1, 11), left(2, 12)]);
        let next = reflector.reflect(test(1, 17), RECEIVED, 21);
        assert_eq!(next.follow_ups, [left(3, 13), left(4, 14)]);
    }

    #[test]
    fn departures_that_nobody_asks_about_are_forgotten() {
        let mut reflector = Reflector::default();
        let count = DEPARTED_MAX as u32 + 3;
        for sequence in 0..count {
            reflector.next_sequence = sequence + 1;
            reflector.left(sequence, 5);
        }
        reflector.left(count, 5);
        assert_eq!(reflector.departed.len(), DEPARTED_MAX);
        assert_eq!(reflector.departed[0].sequence, 3);
    }

    #[test]
    fn another_session_is_counted_from_the_start() {
        let mut reflector = Reflector::default();
        reflector.reflect(test(1, 0), RECEIVED, 6);
        reflector.left(0, 7);
        let other = reflector.reflect(test(2, 0), RECEIVED, 8);
        assert_eq!((other.sequence, other.follow_ups), (0, [None; 2]));
    }
}
