//! The handshakes that an address with a cookie may have computed (paper, section 5.3): a token bucket for each.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::keyed_hash::KeyedHash;
use super::token_bucket::{Rate, TokenBucket};

/// Handshakes for one address, as the kernel has it: `PACKETS_PER_SECOND` and `PACKETS_BURSTABLE`.
const RATE: Rate = Rate::per_second(20, 5);
/// Buckets are kept in sets of eight, so that few addresses that meet in one by chance are no harm.
const WAYS: usize = 8;
/// A bucket that is full again is as good as none, so an entry lives for at most 5 / 20 s. In that time a core computes
/// some 1,560 handshakes of 160 us, so that more addresses than this would not be served anyway. At that pace a set
/// holds three entries on average, and one in two hundred is full. 160 KiB.
const SETS: usize = 512;

const _: () = assert!(SETS * WAYS >= 2 * 1_560);

/// The buckets. An address for which there is no room is refused, as in the kernel.
#[derive(Debug, Default)]
pub(super) struct AddressLimit {
    /// Empty until the first address.
    entries: Box<[Option<Entry>]>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    network: IpAddr,
    bucket: TokenBucket,
}

impl AddressLimit {
    /// Takes a token of this address; false if there is none.
    pub(super) fn take(&mut self, now: Instant, hash: &KeyedHash, address: IpAddr) -> bool {
        if self.entries.is_empty() {
            self.entries = vec![None; SETS * WAYS].into_boxed_slice();
        }
        let network = network_of(address);
        let first = hash.of(&network) as usize % SETS * WAYS;
        let set = &mut self.entries[first..first + WAYS];
        let is_it = |entry: &&mut Entry| entry.network == network;
        if let Some(entry) = set.iter_mut().flatten().find(is_it) {
            return entry.bucket.take(now, RATE);
        }
        let is_vacant = |it: &&mut Option<Entry>| it.is_none_or(|it| it.bucket.is_full(now));
        let Some(vacant) = set.iter_mut().find(is_vacant) else {
            return false;
        };
        let bucket = TokenBucket::default();
        vacant
            .insert(Entry { network, bucket })
            .bucket
            .take(now, RATE)
    }
}

/// An address of IPv6 counts with its whole /64, of which a single host has all.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::tests::{clock, sources};

    /// How many tokens each of so many addresses gets, one after the other, at one moment.
    fn tokens(
        limit: &mut AddressLimit,
        now: Instant,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> usize {
        let hash = KeyedHash::draw(&mut sources(1));
        addresses.filter(|it| limit.take(now, &hash, *it)).count()
    }

    fn v4(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn addresses_have_tokens_of_their_own_and_a_64_counts_as_one() {
        let (mut limit, now) = (AddressLimit::default(), clock());
        let mut of = |text: &str| {
            tokens(
                &mut limit,
                now,
                std::iter::repeat_n(text.parse().unwrap(), 9),
            )
        };
        assert_eq!(of("192.0.2.1"), 5);
        assert_eq!(of("192.0.2.2"), 5);
        assert_eq!(of("2001:db8::1"), 5);
        assert_eq!(of("2001:db8::2:0:0:1"), 0, "the same /64");
        assert_eq!(of("2001:db8:0:1::1"), 5, "the next");
    }

    #[test]
    fn the_table_is_bounded_and_entries_make_room() {
        let (mut limit, start) = (AddressLimit::default(), clock());
        let served = tokens(&mut limit, start, (0..1_560).map(v4));
        assert!((1_550..=1_560).contains(&served), "{served}");
        let many = tokens(&mut limit, start, (10_000..110_000).map(v4));
        assert!((1_000..=SETS * WAYS - served).contains(&many), "{many}");
        assert_eq!(limit.entries.len(), SETS * WAYS);
        let later = start + RATE.interval;
        assert_eq!(tokens(&mut limit, later, (200_000..201_000).map(v4)), 1_000);
    }

    #[test]
    fn over_a_minute_an_address_gets_its_rate() {
        let (mut limit, start) = (AddressLimit::default(), clock());
        let at = |ms: u32| start + Duration::from_millis(ms.into());
        let taken: usize = (0..60_000)
            .map(|ms| tokens(&mut limit, at(ms), std::iter::once(v4(1))))
            .sum();
        assert_eq!(taken, 5 + 60 * 20 - 1);
    }
}
