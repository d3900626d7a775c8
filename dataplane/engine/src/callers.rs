//! Who gets a cookie while handshakes flood in.
//!
//! A spoofed address calls once; an honest initiator that gets no answer calls again after five seconds, from the same
//! address. So under load an address is answered when it *comes back*, once, and hardly any other. Addresses are
//! remembered in bitmaps under a keyed hash, in two generations, which bounds the memory whatever is sent.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Longer than an initiator's retry of 5 s, so that its next try falls into this generation or the one after.
const GENERATION: Duration = Duration::from_secs(6);
/// 1 MiB a bitmap. At 50,000 addresses a second a generation sets 300,000 bits of 8 Mi, so that two of them take one
/// stranger in fourteen for somebody who came back: 3,600 a second, which the replies below have room for.
const BITS: usize = 1 << 23;
/// Cookie replies per second to those who come back. One costs about 5 us with its datagram: 2 % of a core.
const RETURNING_PER_SECOND: u32 = 4_000;
/// Cookie replies per second to strangers: plenty for a cluster that starts, nothing in a flood.
const STRANGERS_PER_SECOND: u32 = 1_000;

/// See the module. Its memory exists from the first time that there is load.
#[derive(Debug)]
pub(crate) struct Callers {
    hasher: RandomState,
    seen: Generations,
    answered: Generations,
    turned_at: Instant,
    strangers_left: u32,
    returning_left: u32,
    refilled_at: Instant,
}

impl Callers {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            hasher: RandomState::new(),
            seen: Generations::default(),
            answered: Generations::default(),
            turned_at: now,
            strangers_left: STRANGERS_PER_SECOND,
            returning_left: RETURNING_PER_SECOND,
            refilled_at: now,
        }
    }

    /// True if the caller, whose first MAC is right, is to be sent a cookie now.
    pub(crate) fn may_answer(&mut self, now: Instant, from: IpAddr) -> bool {
        self.let_time_pass(now);
        let bit = self.hasher.hash_one(from) as usize % BITS;
        let returns = self.seen.contains(bit);
        self.seen.insert(bit);
        if self.answered.contains(bit) {
            return false;
        }
        let left = if returns {
            &mut self.returning_left
        } else {
            &mut self.strangers_left
        };
        if *left == 0 {
            return false;
        }
        *left -= 1;
        self.answered.insert(bit);
        true
    }

    fn let_time_pass(&mut self, now: Instant) {
        if now.saturating_duration_since(self.refilled_at) >= Duration::from_secs(1) {
            self.refilled_at = now;
            self.strangers_left = STRANGERS_PER_SECOND;
            self.returning_left = RETURNING_PER_SECOND;
        }
        let quiet = now.saturating_duration_since(self.turned_at);
        if quiet >= GENERATION {
            self.turned_at = now;
            self.seen.turn(quiet >= 2 * GENERATION);
            self.answered.turn(quiet >= 2 * GENERATION);
        }
    }
}

/// Two bitmaps, of which the older is forgotten in turn.
#[derive(Debug, Default)]
struct Generations {
    current: Box<[u64]>,
    former: Box<[u64]>,
}

impl Generations {
    fn contains(&self, bit: usize) -> bool {
        let has = |map: &[u64]| {
            map.get(bit / 64)
                .is_some_and(|word| word >> (bit % 64) & 1 == 1)
        };
        has(&self.current) || has(&self.former)
    }

    fn insert(&mut self, bit: usize) {
        if self.current.is_empty() {
            self.current = vec![0; BITS / 64].into_boxed_slice();
        }
        self.current[bit / 64] |= 1 << (bit % 64);
    }

    fn turn(&mut self, both: bool) {
        self.former = std::mem::take(&mut self.current);
        if both {
            self.former = Box::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test is a driver")]
    fn clock() -> Instant {
        Instant::now()
    }

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn in_a_flood_only_who_comes_back_is_answered_and_only_once() {
        let start = clock();
        let mut callers = Callers::new(start);
        let strangers = (1..50_000)
            .filter(|n| callers.may_answer(start, address(*n)))
            .count();
        let few = STRANGERS_PER_SECOND as usize;
        assert!(
            (few..few + few / 2).contains(&strangers),
            "{strangers}, of whom some were mistaken"
        );
        // One in two hundred is mistaken for somebody who came back.
        let stranger = (1 << 31..)
            .map(address)
            .find(|it| !callers.may_answer(start, *it))
            .expect("nearly every stranger in the same second");
        let mut answered = 0;
        for second in 1..5 {
            let now = start + Duration::from_secs(second);
            let from = second as u32 * 50_000;
            answered += (from..from + 50_000)
                .filter(|n| callers.may_answer(now, address(*n)))
                .count();
        }
        assert!(answered < 4 * 5_000, "{answered}");
        let retry = start + Duration::from_secs(5);
        assert!(callers.may_answer(retry, stranger), "it came back");
        assert!(!callers.may_answer(retry, stranger), "it has its answer");
    }

    #[test]
    fn without_a_flood_everybody_is_answered_again_after_a_while() {
        let start = clock();
        let mut callers = Callers::new(start);
        assert!(callers.may_answer(start, address(1)));
        assert!(!callers.may_answer(start + GENERATION, address(1)));
        assert!(callers.may_answer(start + 3 * GENERATION, address(1)));
    }
}
