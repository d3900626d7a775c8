//! The door for handshake messages of all peers: MAC, load, cookies (paper, section 5.3).
//!
//! This is the one module that knows boringtun, for its rate limiter, which reads its own clock and randomness. It counts a
//! message once for every check; here a message is checked and counted once, and looked at again only to write a cookie.

use std::net::IpAddr;
use std::time::Instant;

use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::x25519;

use crate::callers::Callers;
use crate::drops::Drop;
use crate::message::COOKIE_REPLY_LEN;
use crate::tunnel::identity::Identity;

/// Handshake messages let through per second before cookies are asked for. One costs the responder four scalar
/// multiplications of about 40 us, so this is a tenth of a core.
const HANDSHAKES_PER_SECOND: u64 = 500;

/// See the module.
pub(crate) struct Gate {
    limiter: RateLimiter,
    callers: Callers,
}

/// What to do with a handshake message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    /// Send the cookie reply that was written.
    Cookie,
    Refused(Drop),
}

impl Gate {
    pub(crate) fn new(identity: &Identity, now: Instant) -> Self {
        let point = x25519::PublicKey::from(*identity.public_key().as_bytes());
        Self {
            limiter: RateLimiter::new(&point, HANDSHAKES_PER_SECOND),
            callers: Callers::new(now),
        }
    }

    /// Checks the MACs of a handshake message; under load it writes a cookie reply to its sender.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        reply: &mut [u8; COOKIE_REPLY_LEN],
    ) -> Admission {
        self.limiter.reset_count();
        // Without a second MAC this is nobody who has had a cookie: whether it gets one is decided before one is computed.
        let has_mac2 = datagram
            .last_chunk::<16>()
            .is_some_and(|mac2| *mac2 != [0; 16]);
        let address = has_mac2.then_some(from);
        match self.limiter.verify_packet(address, datagram, reply) {
            Ok(_) => Admission::Admitted,
            Err(TunnResult::Err(WireGuardError::InvalidMac)) => Admission::Refused(Drop::BadMac),
            Err(TunnResult::WriteToNetwork(_) | TunnResult::Err(WireGuardError::UnderLoad)) => {
                self.under_load(now, from, datagram, reply)
            }
            Err(_) => Admission::Refused(Drop::MalformedMessage),
        }
    }

    fn under_load(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        reply: &mut [u8; COOKIE_REPLY_LEN],
    ) -> Admission {
        if !self.callers.may_answer(now, from) {
            return Admission::Refused(Drop::Flood);
        }
        match self.limiter.verify_packet(Some(from), datagram, reply) {
            // The second ended between the two looks.
            Ok(_) => Admission::Admitted,
            Err(TunnResult::WriteToNetwork(_)) => Admission::Cookie,
            Err(_) => Admission::Refused(Drop::Flood),
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
