//! The peer's side of the measurement: a reply to every test, and when the reply before it really left.

use crate::stamp::{FollowUp, Reply, Stamp, Test};

/// See the module. Stateful (RFC 8762, section 4.3): it counts what it answers.
#[derive(Debug, Default)]
pub(crate) struct Reflector {
    session: Option<u16>,
    next_sequence: u32,
    last_left: Option<FollowUp>,
}

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
            follow_up: self.last_left.take(),
        };
        self.next_sequence = self.next_sequence.wrapping_add(1);
        reply
    }

    /// The kernel says when a reply left.
    pub(crate) fn left(&mut self, sequence: u32, at_ns: u64) {
        if sequence.wrapping_add(1) == self.next_sequence {
            self.last_left = Some(FollowUp {
                sequence,
                sent_ns: at_ns,
            });
        }
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

    #[test]
    fn a_reply_tells_when_the_one_before_it_left() {
        let mut reflector = Reflector::default();
        assert_eq!(reflector.reflect(test(1, 10), RECEIVED, 6).follow_up, None);
        reflector.left(0, 7);
        let second = reflector.reflect(test(1, 12), RECEIVED, 8);
        assert_eq!(second.sequence, 1);
        let left = FollowUp {
            sequence: 0,
            sent_ns: 7,
        };
        assert_eq!(second.follow_up, Some(left));
        // The kernel says nothing of the second, or too late.
        let third = reflector.reflect(test(1, 13), RECEIVED, 9);
        assert_eq!(third.follow_up, None);
        reflector.left(1, 10);
        assert_eq!(reflector.reflect(test(1, 14), RECEIVED, 11).follow_up, None);
    }

    #[test]
    fn another_session_is_counted_from_the_start() {
        let mut reflector = Reflector::default();
        reflector.reflect(test(1, 0), RECEIVED, 6);
        reflector.left(0, 7);
        let other = reflector.reflect(test(2, 0), RECEIVED, 8);
        assert_eq!((other.sequence, other.follow_up), (0, None));
    }
}
