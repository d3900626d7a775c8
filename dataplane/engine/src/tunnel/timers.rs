//! When to begin a handshake, to repeat it, to give it up, to say something, to forget everything (paper, section 6, in
//! the kernel's reading of it). A state machine without sessions and without a clock; persistent keepalive is the
//! engine's.

use std::time::{Duration, Instant};

/// Between two handshake messages to one peer, at least.
pub(super) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// What is added to the time until a repetition, at most, so that two ends that collided do not collide again.
pub(super) const JITTER_MAX: Duration = Duration::from_millis(333);
/// A handshake is tried for so long after somebody last wanted it.
const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// Who has received data and has nothing to send says so after this time.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Keys are forgotten when there were no new ones for so long: three times `REJECT_AFTER_TIME`.
const FORGET_AFTER_TIME: Duration = Duration::from_secs(3 * 180);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Send an initiation; due until one was sent.
    Handshake,
    /// Send an empty message.
    Keepalive,
    /// The peer does not answer: forget what waits for it.
    GiveUp,
    /// Forget all keys.
    Forget,
}

/// Points in time at which something is due, unless something else happens before.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Somebody wants a new session.
    wanted: bool,
    /// Since when, at the latest request.
    wanted_since: Option<Instant>,
    /// When an initiation without a response is repeated.
    retry: Option<Instant>,
    /// When a handshake message was last sent.
    handshake_sent: Option<Instant>,
    jitter: Duration,
    /// When a passive keepalive is due, and whether data came while it was.
    keepalive: Option<Instant>,
    keepalive_again: bool,
    /// When silence after what we have sent means that the session may be gone.
    silence: Option<Instant>,
    forget: Option<Instant>,
    /// The session was about to end while the peer was sending, and a new one was asked for.
    last_minute: bool,
}

impl Timers {
    /// A new session is wanted: it will be tried for.
    pub(super) fn want_handshake(&mut self, now: Instant) {
        self.wanted = true;
        self.wanted_since = Some(now);
    }

    /// As [`Self::want_handshake`], once in the life of a session.
    pub(super) fn want_handshake_in_time(&mut self, now: Instant) {
        if !self.last_minute {
            self.last_minute = true;
            self.want_handshake(now);
        }
    }

    /// True if the last handshake message is long enough ago.
    pub(super) fn may_initiate(&self, now: Instant) -> bool {
        self.handshake_sent
            .is_none_or(|at| now.saturating_duration_since(at) >= REKEY_TIMEOUT)
    }

    /// The next handshake may begin at once: it will be another one.
    pub(super) fn allow_handshake(&mut self) {
        self.handshake_sent = None;
    }

    pub(super) fn initiation_sent(&mut self, now: Instant, jitter: Duration) {
        self.wanted = false;
        self.retry = Some(now + REKEY_TIMEOUT + jitter);
        self.response_sent(now, jitter);
    }

    pub(super) fn response_sent(&mut self, now: Instant, jitter: Duration) {
        self.handshake_sent = Some(now);
        self.jitter = jitter;
        self.authenticated_sent();
    }

    /// There are new keys, which the peer may not have yet.
    pub(super) fn session_derived(&mut self, now: Instant) {
        self.forget = Some(now + FORGET_AFTER_TIME);
    }

    /// Both ends have the keys, or nobody wants them any more.
    pub(super) fn handshake_ended(&mut self) {
        self.wanted = false;
        self.wanted_since = None;
        self.retry = None;
        self.last_minute = false;
    }

    /// A message with something in it was sent.
    pub(super) fn data_sent(&mut self, now: Instant) {
        self.silence
            .get_or_insert(now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + self.jitter);
    }

    pub(super) fn data_received(&mut self, now: Instant) {
        if self.keepalive.is_some() {
            self.keepalive_again = true;
        } else {
            self.keepalive = Some(now + KEEPALIVE_TIMEOUT);
        }
    }

    pub(super) fn authenticated_sent(&mut self) {
        self.keepalive = None;
        self.keepalive_again = false;
    }

    pub(super) fn authenticated_received(&mut self) {
        self.silence = None;
    }

    /// What is due, one thing at a time.
    pub(super) fn poll(&mut self, now: Instant) -> Due {
        let is_due = |at: &mut Instant| now >= *at;
        if self.forget.take_if(is_due).is_some() {
            return Due::Forget;
        }
        if self.silence.take_if(is_due).is_some() {
            self.want_handshake(now);
        }
        let repeat = self.retry.is_some_and(|at| now >= at);
        let is_hopeless = |since| now.saturating_duration_since(since) >= REKEY_ATTEMPT_TIME;
        if repeat && self.wanted_since.is_none_or(is_hopeless) {
            self.handshake_ended();
            self.keepalive = None;
            return Due::GiveUp;
        }
        if (repeat || self.wanted && self.retry.is_none()) && self.may_initiate(now) {
            return Due::Handshake;
        }
        if self.keepalive.take_if(is_due).is_some() {
            if std::mem::take(&mut self.keepalive_again) {
                self.keepalive = Some(now + KEEPALIVE_TIMEOUT);
            }
            return Due::Keepalive;
        }
        Due::Nothing
    }

    /// True if nothing will be due unless something happens.
    pub(super) fn are_at_rest(&self) -> bool {
        let deadlines = [self.retry, self.keepalive, self.silence, self.forget];
        !self.wanted && deadlines.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests;
