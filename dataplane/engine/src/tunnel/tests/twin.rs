//! Ours against boringtun's `Tunn`, which reads its own clock: it takes part in everything that we bring about.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey as Point, StaticSecret};
use proptest::prelude::*;

use super::*;
use crate::tunnel::gate::{Admission, Gate};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// boringtun's end with key `n`, to the one with key `peer`.
fn twin(n: u8, peer: u8, preshared_key: Option<[u8; 32]>, limit: u64) -> Tunn {
    let secret = StaticSecret::from([n; 32]);
    let peer = Point::from(&StaticSecret::from([peer; 32]));
    let limiter = Arc::new(RateLimiter::new(&Point::from(&secret), limit));
    Tunn::new(secret, peer, preshared_key, None, n.into(), Some(limiter))
}

fn written(result: TunnResult<'_>) -> Vec<u8> {
    let TunnResult::WriteToNetwork(message) = result else {
        panic!("boringtun has nothing to send: {result:?}");
    };
    message.to_vec()
}

fn taken(result: TunnResult<'_>) -> Vec<u8> {
    if let TunnResult::WriteToTunnelV4(packet, _) = result {
        return packet.to_vec();
    }
    assert!(matches!(result, TunnResult::Done), "{result:?}");
    Vec::new()
}

/// A packet that boringtun takes for one.
fn packet(len: usize, content: u8) -> Vec<u8> {
    let mut packet = vec![content; len];
    packet[..4].copy_from_slice(&[0x45, 0, 0, 0]);
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

/// A handshake that one end begins.
fn shake(now: Instant, ours: &mut End, twin: &mut Tunn, we_begin: bool) {
    let mut room = vec![0; 2048];
    if we_begin {
        ours.tunnel.timers.allow_handshake();
        let initiation = ours.initiate(now).unwrap();
        let response = written(twin.decapsulate(Some(ADDRESS), &initiation, &mut room));
        ours.tunnel.complete(now, &response).unwrap();
        let keepalive = ours.seal(now, &[]);
        assert!(taken(twin.decapsulate(None, &keepalive, &mut room)).is_empty());
    } else {
        let initiation = written(twin.format_handshake_initiation(&mut room, true));
        let response = ours.respond(now, &initiation).unwrap();
        let keepalive = written(twin.decapsulate(Some(ADDRESS), &response, &mut room));
        assert_eq!(ours.open(now, &keepalive), Ok(Vec::new()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Over handshakes of either end, with packets that arrive in another order, twice, or after the next handshake.
    #[test]
    fn packets_get_through_whoever_begins(
        preshared_key in any::<Option<[u8; 32]>>(),
        rounds in prop::collection::vec((any::<bool>(), any::<u64>(), 1..20usize), 1..6),
    ) {
        let mut now = clock();
        let mut ours = End::new(1, 2);
        let key = preshared_key.and_then(PresharedKey::from_bytes);
        ours.tunnel.set_preshared_key(key.as_ref());
        let mut twin = twin(2, 1, preshared_key, u64::MAX);
        let mut room = vec![0; 4096];
        let mut late: Option<(Vec<u8>, Vec<u8>)> = None;
        for (we_begin, order, count) in rounds {
            // boringtun's timestamps are those of the real clock, ours never repeat.
            shake(now, &mut ours, &mut twin, we_begin);
            if we_begin && let Some((datagram, sent)) = late.take() {
                prop_assert_eq!(ours.open(now, &datagram), Ok(sent), "on the session before");
            }
            let mut there = Vec::new();
            let mut back = Vec::new();
            for n in 0..count {
                let sent = packet(20 + n * 67, n as u8);
                there.push((ours.seal(now, &sent), sent.clone()));
                back.push((written(twin.encapsulate(&sent, &mut room)), sent));
            }
            shuffle(&mut there, order);
            shuffle(&mut back, order);
            late = back.pop();
            for (datagram, sent) in there {
                prop_assert_eq!(taken(twin.decapsulate(None, &datagram, &mut room)), sent);
            }
            for (datagram, sent) in back {
                prop_assert_eq!(ours.open(now, &datagram), Ok(sent));
                prop_assert_eq!(ours.open(now, &datagram), Err(Drop::Replay));
            }
            now += seconds(100);
        }
    }
}

/// An order that follows from `seed`.
fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for i in (1..items.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        items.swap(i, (seed >> 33) as usize % (i + 1));
    }
}

#[test]
fn another_preshared_key_is_another_peer() {
    let now = clock();
    let mut room = vec![0; 256];
    let mut ours = End::new(1, 2);
    let mut twin = twin(2, 1, Some([9; 32]), u64::MAX);
    let initiation = ours.initiate(now).unwrap();
    let response = written(twin.decapsulate(Some(ADDRESS), &initiation, &mut room));
    let refused = ours.tunnel.complete(now, &response);
    assert_eq!(refused, Err(Drop::BadHandshake));
}

#[test]
fn a_cookie_of_boringtuns_opens_its_gate() {
    let now = clock();
    let mut room = vec![0; 256];
    let mut ours = End::new(1, 2);
    let mut twin = twin(2, 1, None, 0);
    let initiation = ours.initiate(now).unwrap();
    let cookie = written(twin.decapsulate(Some(ADDRESS), &initiation, &mut room));
    let mut forged = cookie.clone();
    forged[40] ^= 1;
    assert_eq!(ours.tunnel.cookie(now, &forged), Err(Drop::BadHandshake));
    assert_eq!(ours.tunnel.cookie(now, &cookie), Ok(()));
    let again = ours.tunnel.cookie(now, &cookie);
    assert_eq!(again, Err(Drop::BadHandshake), "it was for one message");
    let initiation = ours.initiate(now + REKEY_TIMEOUT).unwrap();
    let response = written(twin.decapsulate(Some(ADDRESS), &initiation, &mut room));
    assert_eq!(ours.tunnel.complete(now, &response), Ok(()));
    let stale = ours.initiate(now + seconds(120)).unwrap();
    assert_eq!(stale[132..], [0; 16], "no cookie lasts two minutes");
}

#[test]
fn a_cookie_of_our_gate_opens_it_for_boringtun() {
    let now = clock();
    let mut room = vec![0; 256];
    let mut reply = [0; 64];
    let mut ours = End::new(1, 2);
    let mut twin = twin(2, 1, None, u64::MAX);
    let mut gate = Gate::new(&ours.identity, &mut ours.sources);
    let from = SocketAddr::new(ADDRESS, 51_820);
    let mut knock = |from, message: &[u8]| {
        let admission = gate.admit(now, &mut ours.sources, from, message, &mut reply);
        (admission, reply)
    };
    for _ in 0..500 {
        let message = written(twin.format_handshake_initiation(&mut room, true));
        assert_eq!(knock(from, &message).0, Admission::Admitted);
    }
    let message = written(twin.format_handshake_initiation(&mut room, true));
    let (admission, reply) = knock(from, &message);
    assert_eq!(admission, Admission::Cookie);
    let done = twin.decapsulate(None, &reply, &mut room);
    assert!(matches!(done, TunnResult::Done), "{done:?}");
    let message = written(twin.format_handshake_initiation(&mut room, true));
    let elsewhere = SocketAddr::new(ADDRESS, 51_821);
    for (from, is_right) in [(elsewhere, false), (from, true)] {
        let (admission, _) = knock(from, &message);
        let is_admitted = admission == Admission::Admitted;
        assert_eq!(is_admitted, is_right, "it is for one address and port");
    }
}
