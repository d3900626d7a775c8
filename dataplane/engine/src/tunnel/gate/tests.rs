//! Histories of a gate: who gets a cookie, who gets in, and what that costs.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::*;
use crate::key::PrivateKey;
use crate::tests::forger::Forger;
use crate::tests::{clock, sources};

const COOKIE_REPLIES_PER_SECOND: usize = 5_096;
const RETRY: Duration = Duration::from_secs(5);

/// A gate, its clock, and messages without a cookie from everywhere.
struct Siege {
    gate: Gate,
    sources: Sources,
    now: Instant,
    identity: Identity,
    flood: Forger,
    strangers: u32,
    reply: [u8; COOKIE_REPLY_LEN],
}

impl Siege {
    fn new() -> Self {
        let identity = Identity::new(PrivateKey::from_bytes([2; 32]));
        let mut sources = sources(7);
        Self {
            gate: Gate::new(&identity, &mut sources),
            sources,
            now: clock(),
            flood: Forger::new(&identity.public_key(), 1),
            identity,
            strangers: 0,
            reply: [0; COOKIE_REPLY_LEN],
        }
    }

    /// A gate under load.
    fn laid() -> Self {
        let mut siege = Self::new();
        siege.flood(2_000);
        siege
    }

    fn forger(&self, number: u8) -> Forger {
        Forger::new(&self.identity.public_key(), number)
    }

    fn admit(&mut self, from: SocketAddr, message: &[u8]) -> Admission {
        let (now, reply) = (self.now, &mut self.reply);
        self.gate
            .admit(now, &mut self.sources, from, message, reply)
    }

    /// So many messages, each from a source that was never there before; how many got a cookie.
    fn flood(&mut self, count: u32) -> usize {
        let addresses = self.strangers..self.strangers + count;
        self.strangers += count;
        self.flood_from(addresses)
    }

    fn flood_from(&mut self, addresses: impl Iterator<Item = u32>) -> usize {
        let send = |n| {
            let message = self.flood.message();
            let from = (IpAddr::V4(Ipv4Addr::from_bits(100 << 24 | n)), 51_820);
            self.admit(from.into(), &message) == Admission::Cookie
        };
        addresses
            .map(send)
            .filter(|is_answered| *is_answered)
            .count()
    }

    /// A try of a peer, which keeps the cookie that it may get.
    fn try_in(&mut self, peer: &mut Forger, from: SocketAddr) -> Admission {
        let message = peer.message();
        let admission = self.admit(from, &message);
        if admission == Admission::Cookie {
            assert!(peer.take(&self.reply), "it is to the last message");
        }
        admission
    }

    /// Tries every five seconds until the peer gets in; the number of tries.
    fn tries(&mut self, peer: &mut Forger, from: SocketAddr) -> u32 {
        for number in 1..=35 {
            self.flood(5_000);
            if self.try_in(peer, from) == Admission::Admitted {
                return number;
            }
            self.now += RETRY;
        }
        panic!("{from} got nowhere");
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_newcomer_gets_in_with_its_third_try() {
    let mut siege = Siege::laid();
    let mut peer = siege.forger(2);
    assert!(siege.tries(&mut peer, at("192.0.2.1:1")) <= 3);
    assert!(siege.tries(&mut siege.forger(3), at("[2001:db8::1]:1")) <= 3);
}

#[test]
fn two_peers_behind_one_address_get_in_each_with_its_own_cookie() {
    let mut siege = Siege::laid();
    let (first_at, second_at) = (at("192.0.2.1:1025"), at("192.0.2.1:1026"));
    let (mut first, mut second) = (siege.forger(2), siege.forger(3));
    assert!(siege.tries(&mut first, first_at) <= 3);
    assert!(siege.tries(&mut second, second_at) <= 3);
    let message = first.message();
    let elsewhere = siege.admit(second_at, &message);
    assert_ne!(elsewhere, Admission::Admitted, "a cookie is for one port");
}

#[test]
fn many_addresses_of_one_64_have_the_tokens_of_one() {
    let mut siege = Siege::laid();
    let mut let_in = 0;
    for n in 2..202u8 {
        let from = SocketAddr::new(format!("2001:db8::{n:x}").parse().unwrap(), n.into());
        let mut forger = siege.forger(n);
        siege.flood(100);
        // A stranger, a source that came back, and one with a cookie.
        for _ in 0..3 {
            let admission = siege.try_in(&mut forger, from);
            let_in += u32::from(admission == Admission::Admitted);
        }
        siege.now += Duration::from_millis(5);
    }
    assert!((5..=5 + 20).contains(&let_in), "{let_in} within a second");
}

#[test]
fn a_cookie_is_worth_nothing_once_its_secret_has_changed() {
    let mut siege = Siege::laid();
    let start = siege.now;
    let (mut peer, from) = (siege.forger(2), at("192.0.2.1:1"));
    siege.tries(&mut peer, from);
    for (age_secs, expected) in [(119, true), (120, false)] {
        siege.now = start + Duration::from_secs(age_secs);
        siege.flood(2_000);
        let is_admitted = siege.try_in(&mut peer, from) == Admission::Admitted;
        assert_eq!(is_admitted, expected, "after {age_secs} s");
    }
    assert!(siege.tries(&mut peer, from) <= 3, "it gets another");
}

#[test]
fn what_was_admitted_is_not_admitted_again_and_is_no_load() {
    let mut siege = Siege::new();
    let (mut peer, from) = (siege.forger(2), at("192.0.2.1:1"));
    let mut message = peer.message();
    assert_eq!(siege.admit(from, &message), Admission::Admitted);
    for n in 0..10_000 {
        let elsewhere = SocketAddr::new(from.ip(), n);
        let admission = siege.admit(elsewhere, &message);
        assert_eq!(admission, Admission::Refused(Drop::BadHandshake));
    }
    message[116] ^= 1;
    assert_eq!(
        siege.admit(from, &message),
        Admission::Refused(Drop::BadMac)
    );
    let another = siege.try_in(&mut peer, from);
    assert_eq!(another, Admission::Admitted, "there is no load");
}

/// One address with one cookie repeats one message 20,000 times a second, with its own second MAC or another.
#[test]
fn one_message_behind_a_cookie_is_computed_once_however_often_it_comes() {
    let mut siege = Siege::laid();
    let (mut attacker, from) = (siege.forger(2), at("192.0.2.66:66"));
    siege.tries(&mut attacker, from);
    let mut message = attacker.message();
    let mut computed = 0;
    for n in 0..40_000u32 {
        // Strangers without whom there would be no load.
        siege.flood(u32::from(n % 20 == 0));
        message[147] ^= u8::from(n % 1_000 == 999);
        let admission = siege.admit(from, &message);
        computed += u32::from(admission == Admission::Admitted);
        siege.now += Duration::from_micros(50);
    }
    assert_eq!(computed, 1, "in two seconds");
    let next = siege.try_in(&mut attacker, from);
    assert_eq!(next, Admission::Admitted, "its tokens are not used up");
}

#[test]
fn a_wrong_first_mac_is_no_load_either() {
    let mut siege = Siege::new();
    let mut other = Forger::new(&PrivateKey::from_bytes([3; 32]).public_key(), 2);
    let from = at("192.0.2.1:1");
    for _ in 0..2_000 {
        let message = other.message();
        assert_eq!(
            siege.admit(from, &message),
            Admission::Refused(Drop::BadMac)
        );
    }
    let mut peer = siege.forger(3);
    peer.cookie = Some([1; 16]);
    let admission = siege.try_in(&mut peer, from);
    assert_eq!(
        admission,
        Admission::Admitted,
        "nor is the second MAC looked at"
    );
    assert_eq!(
        siege.admit(from, &[1; 31]),
        Admission::Refused(Drop::MalformedMessage)
    );
}

/// 500 times a second: far more than a share, but there is a pool.
#[test]
fn a_spoofed_source_costs_its_owner_nothing_while_there_is_room_for_all() {
    let mut siege = Siege::laid();
    let (mut peer, mut spoof, from) = (siege.forger(2), siege.forger(3), at("192.0.2.1:1"));
    for n in 0..5_000u32 {
        siege.now += Duration::from_millis(2);
        // Strangers without whom there would be no load.
        siege.flood(n % 2);
        let message = spoof.message();
        let admission = siege.admit(from, &message);
        // After two seconds the pool has recovered from how the load began.
        assert!(n < 1_000 || admission == Admission::Cookie, "{admission:?}");
        if n % 1_000 == 999 {
            peer.cookie = None;
            assert_eq!(siege.try_in(&mut peer, from), Admission::Cookie);
        }
    }
}

#[test]
fn sources_that_come_back_all_the_time_have_their_share_and_no_more() {
    let mut siege = Siege::laid();
    let (mut peer, from) = (siege.forger(2), at("192.0.2.1:1"));
    // Twenty sources with a hundred messages a second each, and strangers that drain the pool.
    let mut tries = 0;
    for tenth in 0..200 {
        siege.flood(200);
        siege.flood_from((0..200).map(|n| (9 << 20) + n % 20));
        if tenth % 50 == 7 {
            tries += 1;
            if siege.try_in(&mut peer, from) == Admission::Admitted {
                break;
            }
        }
        siege.now += Duration::from_millis(100);
    }
    assert!(tries <= 3, "{tries}");
}

#[test]
fn replies_have_a_bound_whatever_comes() {
    let mut siege = Siege::laid();
    let mut replies = Vec::new();
    for _ in 0..3 {
        let mut of_second = 0;
        for _ in 0..5 {
            of_second += siege.flood_from(0..4_000);
            siege.now += Duration::from_millis(200);
        }
        replies.push(of_second);
    }
    let burst = COOKIE_REPLIES_PER_SECOND + 1_024 * 8;
    assert!(replies[0] <= burst, "{replies:?}");
    let bound = COOKIE_REPLIES_PER_SECOND + COOKIE_REPLIES_PER_SECOND / 4;
    assert!(replies[1..].iter().all(|it| *it <= bound), "{replies:?}");
}
