//! One session: two keys, a counter, a window, and an end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ployz_aead::Key;

use crate::drops::Drop;
use crate::tunnel::noise::Agreed;
use crate::tunnel::replay::Window;

/// Nobody sends or takes messages on a session as old as this (paper, section 6.1, like the constants below).
pub(super) const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// Who has initiated a session as old as this and sends on it initiates the next.
const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// Nor a message with this counter: it could not be told from one that the window has forgotten.
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Whoever sends this many initiates the next session.
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// Who began the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Initiator,
    Responder,
}

/// See the module.
pub(super) struct Session {
    /// Ours, in the messages to us.
    index: u32,
    peer_index: u32,
    role: Role,
    born: Instant,
    sending: Arc<Key>,
    receiving: Key,
    next_counter: u64,
    window: Window,
}

impl Session {
    pub(super) fn new(now: Instant, role: Role, index: u32, agreed: &Agreed) -> Self {
        Self {
            index,
            peer_index: agreed.peer_index,
            role,
            born: now,
            sending: Arc::new(Key::new(&agreed.sending)),
            receiving: Key::new(&agreed.receiving),
            next_counter: 0,
            window: Window::new(),
        }
    }

    pub(super) fn may_send(&self, now: Instant) -> bool {
        self.age(now) < REJECT_AFTER_TIME && self.next_counter < REJECT_AFTER_MESSAGES
    }

    /// Writes the header of the next data message. The key seals what follows, with the counter that the header says.
    pub(super) fn write_header(&mut self, header: &mut [u8; 16]) {
        header[..4].copy_from_slice(&[4, 0, 0, 0]);
        header[4..8].copy_from_slice(&self.peer_index.to_le_bytes());
        header[8..].copy_from_slice(&self.next_counter.to_le_bytes());
        self.next_counter += 1;
    }

    pub(super) fn sending_key(&self) -> &Arc<Key> {
        &self.sending
    }

    /// The key that opens the messages to us.
    pub(super) fn receiving_key(&self, now: Instant) -> Result<&Key, Drop> {
        match self.age(now) < REJECT_AFTER_TIME {
            true => Ok(&self.receiving),
            false => Err(Drop::UnknownSession),
        }
    }

    /// Notes the counter of an authentic message.
    pub(super) fn note(&mut self, counter: u64) -> Result<(), Drop> {
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(Drop::UnknownSession);
        }
        if self.window.mark(counter) {
            Ok(())
        } else {
            Err(Drop::Replay)
        }
    }

    /// True if who sends on it should initiate another.
    pub(super) fn is_worn(&self, now: Instant) -> bool {
        self.next_counter > REKEY_AFTER_MESSAGES || self.was_initiated_before(now, REKEY_AFTER_TIME)
    }

    /// True if we have initiated it, so long ago.
    pub(super) fn was_initiated_before(&self, now: Instant, age: Duration) -> bool {
        self.role == Role::Initiator && self.age(now) >= age
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }
}

/// The sessions with one peer, in the kernel's three places.
#[derive(Default)]
pub(super) struct Sessions {
    previous: Option<Box<Session>>,
    /// What we send on.
    current: Option<Box<Session>>,
    /// That we have answered for; the peer's first message on it shows that the answer has arrived.
    next: Option<Box<Session>>,
}

impl Sessions {
    pub(super) fn current(&self) -> Option<&Session> {
        self.current.as_deref()
    }

    pub(super) fn current_mut(&mut self) -> Option<&mut Session> {
        self.current.as_deref_mut()
    }

    pub(super) fn get(&self, index: u32) -> Option<&Session> {
        [&self.current, &self.previous, &self.next]
            .into_iter()
            .flatten()
            .find(|session| session.index == index)
            .map(|session| &**session)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Session> {
        [&mut self.current, &mut self.previous, &mut self.next]
            .into_iter()
            .flatten()
            .find(|session| session.index == index)
            .map(|session| &mut **session)
    }

    /// The peer has answered: it has this session already. What waited to be confirmed may still be in use at its end.
    pub(super) fn add_initiated(&mut self, session: Session) {
        let former = self.current.replace(Box::new(session));
        self.previous = self.next.take().or(former);
    }

    /// We have answered.
    pub(super) fn add_answered(&mut self, session: Session) {
        self.next = Some(Box::new(session));
        self.previous = None;
    }

    /// The peer has sent on a session: true if it had waited for that.
    pub(super) fn confirm(&mut self, index: u32) -> bool {
        let confirmed = self.next.take_if(|session| session.index == index);
        let is_confirmed = confirmed.is_some();
        if is_confirmed {
            self.previous = std::mem::replace(&mut self.current, confirmed);
        }
        is_confirmed
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test is a driver")]
    fn session(role: Role, index: u32) -> (Instant, Session) {
        let agreed = Agreed {
            peer_index: 7,
            sending: Zeroizing::new([1; 32]),
            receiving: Zeroizing::new([2; 32]),
        };
        let now = Instant::now();
        (now, Session::new(now, role, index, &agreed))
    }

    #[test]
    fn a_session_wears_by_age_for_its_initiator_and_ends_for_both() {
        let after = |now: Instant, seconds| now + Duration::from_secs(seconds);
        for role in [Role::Initiator, Role::Responder] {
            let (now, session) = session(role, 1);
            let is_initiator = role == Role::Initiator;
            assert!(!session.is_worn(after(now, 119)));
            assert_eq!(session.is_worn(after(now, 120)), is_initiator);
            assert!(session.may_send(after(now, 179)));
            assert!(!session.may_send(after(now, 180)));
            assert!(session.receiving_key(after(now, 179)).is_ok());
            let late = session.receiving_key(after(now, 180)).err();
            assert_eq!(late, Some(Drop::UnknownSession));
        }
    }

    #[test]
    fn a_session_wears_by_messages_for_both_and_ends_before_the_counter_does() {
        let (now, mut session) = session(Role::Responder, 1);
        let mut header = [0; 16];
        session.next_counter = REKEY_AFTER_MESSAGES;
        assert!(!session.is_worn(now));
        session.write_header(&mut header);
        assert!(session.is_worn(now));
        session.next_counter = REJECT_AFTER_MESSAGES - 1;
        assert!(session.may_send(now));
        session.write_header(&mut header);
        assert!(!session.may_send(now));
        let last = REJECT_AFTER_MESSAGES - 1;
        assert_eq!(session.note(last), Ok(()));
        assert_eq!(session.note(last), Err(Drop::Replay));
        for counter in [REJECT_AFTER_MESSAGES, u64::MAX] {
            assert_eq!(session.note(counter), Err(Drop::UnknownSession));
        }
    }

    /// The kernel's `add_new_keypair` and `wg_noise_received_with_keypair`: which sessions are known after which
    /// history.
    #[test]
    fn the_places_of_sessions() {
        const ANSWERED: Role = Role::Responder;
        const INITIATED: Role = Role::Initiator;
        type Row = (&'static [(Role, u32)], [Option<u32>; 3]);
        let rows: [Row; 5] = [
            (&[(ANSWERED, 1)], [None, None, Some(1)]),
            (&[(ANSWERED, 1), (ANSWERED, 2)], [None, None, Some(2)]),
            (&[(INITIATED, 1), (INITIATED, 2)], [Some(1), Some(2), None]),
            (&[(ANSWERED, 1), (INITIATED, 2)], [Some(1), Some(2), None]),
            (
                &[(INITIATED, 1), (INITIATED, 2), (ANSWERED, 3)],
                [None, Some(2), Some(3)],
            ),
        ];
        for (history, places) in rows {
            let mut sessions = Sessions::default();
            for &(role, index) in history {
                let (_, session) = session(role, index);
                match role {
                    Role::Initiator => sessions.add_initiated(session),
                    Role::Responder => sessions.add_answered(session),
                }
            }
            assert_eq!(places_of(&sessions), places, "{history:?}");
            let [_, current, next] = places;
            let confirmed = next.unwrap_or(u32::MAX);
            assert_eq!(sessions.confirm(confirmed), next.is_some());
            if next.is_some() {
                assert_eq!(places_of(&sessions), [current, next, None], "{history:?}");
            }
            assert!(!sessions.confirm(confirmed), "only once");
        }
    }

    fn places_of(sessions: &Sessions) -> [Option<u32>; 3] {
        let places = [&sessions.previous, &sessions.current, &sessions.next];
        places.map(|place| place.as_ref().map(|session| session.index))
    }
}
