//! The gate that handshake messages of all peers pass: MACs, load, cookies (paper, sections 5.3 and 5.4.7).
//!
//! ```text
//! admitted a moment ago          -> refused, for one look-up
//! first MAC is wrong             -> refused
//! no load                        -> admitted
//! load, second MAC is right      -> admitted, as far as the address has tokens
//! load, second MAC is not right  -> refused, with a cookie as far as the allowance goes
//! ```
//!
//! The gate reads no clock and draws no randomness of its own. Its memory is bounded whatever arrives:
//! [`AddressLimit`], [`CookieAllowance`] and [`Repeats`] say by how much.

mod address_limit;
mod allowance;
mod cookies;
mod keyed_hash;
mod load;
mod repeats;
mod token_bucket;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Instant;

use address_limit::AddressLimit;
use allowance::CookieAllowance;
use cookies::{Cookies, Signed};
use keyed_hash::KeyedHash;
use load::Load;
use repeats::Repeats;

use crate::drops::Drop;
use crate::message::COOKIE_REPLY_LEN;
use crate::sources::Sources;
use crate::tunnel::identity::Identity;

/// Admits handshake messages; see the module.
pub(crate) struct Gate {
    cookies: Cookies,
    load: Load,
    addresses: AddressLimit,
    allowance: CookieAllowance,
    repeats: Repeats,
    /// Renewed with the secret of the cookies, so that what shares a bucket by chance does not share it for long.
    hash: KeyedHash,
}

/// The gate's decision about a handshake message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    /// Send the cookie reply that was written.
    Cookie,
    Refused(Drop),
}

impl Gate {
    pub(crate) fn new(identity: &Identity, sources: &mut Sources) -> Self {
        Self {
            cookies: Cookies::new(&identity.public_key()),
            load: Load::default(),
            addresses: AddressLimit::default(),
            allowance: CookieAllowance::default(),
            repeats: Repeats::default(),
            hash: KeyedHash::draw(sources),
        }
    }

    /// Checks the MACs of a handshake message; under load it may write a cookie reply to the sender.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        sources: &mut Sources,
        from: SocketAddr,
        datagram: &[u8],
        reply: &mut [u8; COOKIE_REPLY_LEN],
    ) -> Admission {
        let Some(message) = Signed::parse(datagram) else {
            return Admission::Refused(Drop::MalformedMessage);
        };
        if self.repeats.contains(&self.hash, message.mac1) {
            return Admission::Refused(Drop::BadHandshake);
        }
        if !self.cookies.is_signed(&message) {
            return Admission::Refused(Drop::BadMac);
        }
        let admission = match self.load.note(now) {
            true => self.admit_under_load(now, sources, from, &message, reply),
            false => Admission::Admitted,
        };
        if admission == Admission::Admitted {
            self.repeats.insert(&self.hash, message.mac1);
        }
        admission
    }

    fn admit_under_load(
        &mut self,
        now: Instant,
        sources: &mut Sources,
        from: SocketAddr,
        message: &Signed<'_>,
        reply: &mut [u8; COOKIE_REPLY_LEN],
    ) -> Admission {
        if self.cookies.renew(now, sources) {
            self.hash = KeyedHash::draw(sources);
        }
        if self.cookies.is_from(from, message) {
            return match self.addresses.take(now, &self.hash, from.ip()) {
                true => Admission::Admitted,
                false => Admission::Refused(Drop::Flood),
            };
        }
        let source = self.hash.of(&(from.ip(), from.port()));
        if !self.allowance.take(now, source) {
            return Admission::Refused(Drop::Flood);
        }
        self.cookies.write_reply(sources, from, message, reply);
        Admission::Cookie
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
