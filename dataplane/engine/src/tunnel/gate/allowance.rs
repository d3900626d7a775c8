//! The cookie replies that may be sent while handshakes flood in, and which messages get them.
//!
//! A reply costs some 5 us, so a flood cannot have one for every message. Three observations decide:
//!
//! - A spoofed source is mostly seen once. An honest initiator that gets no answer comes back after five seconds, from
//!   the same address and port. Sources that were seen before have *shares* set aside; a flood from ever new sources
//!   has next to nothing of these.
//! - A keyed hash of address and port finds the share of a source, so that few sources meet in one, and only by chance.
//!   An attacker that spoofs a source can use up the share of that source, by as many messages as the share holds, and
//!   no other's. Nothing else is remembered against the source's owner.
//! - The *pool* is for every message that has no share, or whose share is used up. Without a flood all messages are
//!   answered from there.

use std::time::{Duration, Instant};

use super::token_bucket::{Rate, TokenBucket};

/// Longer than an initiator's retry of 5 s, so that its next try falls into this generation or the one after.
const GENERATION: Duration = Duration::from_secs(6);
/// 1 MiB a bitmap. At 50,000 sources a second a generation sets two bits for each of 300,000, which is one bit in 14: a
/// stranger finds both of its own set in one of two generations once in a hundred times. Those 500 a second are one in
/// two seconds for each share.
const BITS: usize = 1 << 23;

/// Replies for one share: its owner's try in five seconds, two spoofed ones a second, and what the mistakes above take.
const SHARE: Rate = Rate::per_second(4, 8);
/// A hundred sources that are spoofed without pause use up one share in ten, until the hash changes.
const SHARES: usize = 1 << 10;
/// Replies for all: plenty for a network that starts, little in a flood.
const POOL: Rate = Rate::per_second(1_000, 1_000);

/// Replies a second, if all shares and the pool are used up: at 5 us each 2.6 % of a core.
const REPLIES_PER_SECOND: usize = SHARES * 4 + 1_000;
const _: () = assert!(REPLIES_PER_SECOND * 5 <= 30_000);

/// Decides about cookie replies; see the module. Its 2 MiB exist from the first load on.
#[derive(Debug, Default)]
pub(super) struct CookieAllowance {
    seen: Seen,
    /// Empty until there is load.
    shares: Box<[TokenBucket]>,
    pool: TokenBucket,
}

impl CookieAllowance {
    /// True if a message is to be sent a cookie now. `source` is a keyed hash of its address and port.
    pub(super) fn take(&mut self, now: Instant, source: u64) -> bool {
        if self.shares.is_empty() {
            self.shares = vec![TokenBucket::default(); SHARES].into_boxed_slice();
        }
        let share = &mut self.shares[(source >> 54) as usize % SHARES];
        let is_known = self.seen.note(now, source);
        is_known && share.take(now, SHARE) || self.pool.take(now, POOL)
    }
}

/// The sources of the last six to twelve seconds: two bitmaps, of which the older is forgotten in turn.
#[derive(Debug, Default)]
struct Seen {
    current: Box<[u64]>,
    former: Box<[u64]>,
    /// The time at which the current one was begun.
    since: Option<Instant>,
}

impl Seen {
    /// Remembers a source; true if it was remembered already.
    fn note(&mut self, now: Instant, source: u64) -> bool {
        self.turn(now);
        let bits = [source as usize % BITS, (source >> 23) as usize % BITS];
        let is_in = |map: &[u64]| {
            let is_set = |bit: usize| {
                map.get(bit / 64)
                    .is_some_and(|word| word >> (bit % 64) & 1 == 1)
            };
            bits.into_iter().all(is_set)
        };
        let is_known = is_in(&self.current) || is_in(&self.former);
        for bit in bits {
            self.current[bit / 64] |= 1 << (bit % 64);
        }
        is_known
    }

    fn turn(&mut self, now: Instant) {
        let age = self.since.map(|since| now.saturating_duration_since(since));
        if age.is_some_and(|age| age < GENERATION) {
            return;
        }
        let current = std::mem::replace(&mut self.current, vec![0; BITS / 64].into_boxed_slice());
        let is_recent = age.is_some_and(|age| age < 2 * GENERATION);
        self.former = if is_recent { current } else { Box::default() };
        self.since = Some(now);
    }
}
