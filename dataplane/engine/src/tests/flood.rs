//! Histories of floods of handshakes, as one engine lives through them.

use std::net::{IpAddr, Ipv4Addr};

use super::forger::Forger;
use super::*;

const TURN: Duration = Duration::from_millis(500);

/// An engine in a flood, and its clock.
struct Besieged {
    host: Host,
    flood: Forger,
    now: Instant,
    sources: u32,
}

impl Besieged {
    fn new() -> Self {
        let host = Host::new(2);
        Self {
            flood: Forger::new(&host.public_key, 1),
            host,
            now: clock(),
            sources: 0,
        }
    }

    /// What is answered to a message.
    fn receive(&mut self, from: SocketAddr, message: &[u8]) -> Option<Vec<u8>> {
        let host = &mut self.host;
        host.receive_at(self.now, from, Ecn::NotEct, message);
        host.out.datagrams.pop().map(|(reply, ..)| reply)
    }

    /// So many messages, each from a source that was never there before.
    fn flood(&mut self, count: u32) {
        for _ in 0..count {
            self.sources += 1;
            let address = IpAddr::V4(Ipv4Addr::from_bits(100 << 24 | self.sources));
            let message = self.flood.message();
            self.receive((address, 51_820).into(), &message);
        }
    }

    /// Handshakes that were computed: what the forger writes is refused only there.
    fn computed(&self) -> u64 {
        self.host.dropped(Drop::BadHandshake)
    }
}

/// A peer's tries, five seconds apart, until it has a cookie; the number of tries that were not answered.
fn tries_in_vain(
    besieged: &mut Besieged,
    peer: &mut Forger,
    at: SocketAddr,
    spoof: &mut Forger,
) -> u32 {
    for turn in 0..350 {
        besieged.flood(2_500);
        let forged = spoof.message();
        besieged.receive(at, &forged);
        if turn % 10 == 3 {
            let message = peer.message();
            let reply = besieged.receive(at, &message);
            if reply.is_some_and(|reply| peer.take(&reply)) {
                return turn / 10;
            }
        }
        besieged.now += TURN;
    }
    35
}

#[test]
fn one_address_with_one_cookie_has_few_handshakes_computed() {
    let mut besieged = Besieged::new();
    let mut attacker = Forger::new(&besieged.host.public_key, 2);
    let at: SocketAddr = "192.0.2.66:66".parse().unwrap();
    let mut is_let_in = false;
    while !is_let_in {
        let message = attacker.message();
        let reply = besieged.receive(at, &message);
        is_let_in = reply.is_some_and(|reply| attacker.take(&reply));
    }
    let before = besieged.computed();
    for _ in 0..4_000 {
        let message = attacker.message();
        besieged.receive(at, &message);
        besieged.now += Duration::from_micros(500);
    }
    let computed = besieged.computed() - before;
    assert!(computed <= 5 + 2 * 20, "{computed} in two seconds");
}

#[test]
fn a_peer_whose_address_is_spoofed_gets_its_cookie_and_gets_in() {
    let mut besieged = Besieged::new();
    let key = besieged.host.public_key;
    let (mut peer, mut spoof) = (Forger::new(&key, 2), Forger::new(&key, 3));
    let at: SocketAddr = "192.0.2.1:51820".parse().unwrap();
    let tries = tries_in_vain(&mut besieged, &mut peer, at, &mut spoof);
    assert!(tries < 3, "{tries} of 35 tries in vain");
    besieged.now += 10 * TURN;
    besieged.flood(5_000);
    let before = besieged.computed();
    let message = peer.message();
    besieged.receive(at, &message);
    assert_eq!(besieged.computed(), before + 1, "and it is heard");
}
