//! Two and three engines that talk to each other through memory.

mod flood;
pub(crate) mod forger;
mod paths;
mod rtt;
mod shards;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::message::HANDSHAKE_INITIATION_LEN;
use crate::{
    AllowedIpChange, Departure, Drop, Ecn, Endpoint, Engine, PeerSnapshot, PeerUpdate,
    PresharedKey, PrivateKey, PublicKey, ShardMap, Sink, Sources, Tai64n, Update,
};

/// What an engine put out.
#[derive(Default)]
struct Output {
    datagrams: Vec<(Vec<u8>, Endpoint, Departure)>,
    packets: Vec<Vec<u8>>,
}

impl Sink for Output {
    fn datagram(
        &mut self,
        len: usize,
        to: &Endpoint,
        departure: Departure,
        write: impl FnOnce(&mut [u8]),
    ) {
        let mut room = vec![0xee; len];
        write(&mut room);
        self.datagrams.push((room, *to, departure));
    }

    fn part(&mut self) {}

    fn packet(&mut self, packet: &[u8]) -> Result<(), Drop> {
        self.packets.push(packet.to_vec());
        Ok(())
    }
}

/// An engine at an address of its own.
struct Host {
    engine: Engine,
    at: SocketAddr,
    public_key: PublicKey,
    out: Output,
}

impl Host {
    fn new(n: u8) -> Self {
        let mut engine = Engine::new(ShardMap::ONLY, sources(n.into()));
        let private_key = PrivateKey::from_bytes([n; 32]);
        let public_key = private_key.public_key();
        let mut out = Output::default();
        let update = Update {
            private_key: Some(Some(private_key)),
            ..Update::default()
        };
        engine.apply(clock(), &update, &mut out).unwrap();
        Self {
            engine,
            at: format!("192.0.2.{n}:{n}").parse().unwrap(),
            public_key,
            out,
        }
    }

    fn set_peer(&mut self, peer: PeerUpdate) {
        let update = Update {
            peers: vec![peer],
            ..Update::default()
        };
        self.engine.apply(clock(), &update, &mut self.out).unwrap();
    }

    fn add(&mut self, other: &Self, prefixes: &[&str]) {
        self.set_peer(PeerUpdate {
            endpoint: Some(other.at),
            allowed_ips: prefixes
                .iter()
                .map(|p| AllowedIpChange::Add(net(p)))
                .collect(),
            ..PeerUpdate::new(other.public_key)
        });
    }

    fn send(&mut self, packet: &[u8]) {
        let Some(route) = self.engine.route(packet) else {
            return;
        };
        let mut padded = packet.to_vec();
        padded.resize(route.padded_len(packet.len()), 0);
        self.engine
            .encapsulate(clock(), route, &padded, &mut self.out);
    }

    fn receive(&mut self, from: SocketAddr, ecn: Ecn, datagram: &[u8]) {
        self.receive_at(clock(), from, ecn, datagram);
    }

    fn receive_at(&mut self, now: Instant, from: SocketAddr, ecn: Ecn, datagram: &[u8]) {
        let from = Endpoint::configured(from);
        self.engine.handle_datagram(
            now,
            &from,
            ecn.into(),
            &mut datagram.to_vec(),
            &mut self.out,
        );
    }

    fn peer(&self, other: PublicKey) -> PeerSnapshot {
        self.engine
            .snapshot()
            .peers
            .into_iter()
            .find(|p| p.public_key == other)
            .unwrap()
    }

    fn dropped(&self, reason: Drop) -> u64 {
        self.engine.snapshot().drops.get(reason)
    }

    fn delivered(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.out.packets)
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is a driver")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

/// The same every time.
pub(crate) fn sources(seed: u32) -> Sources {
    let mut state = seed;
    let random = move |bytes: &mut [u8]| {
        for byte in bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
    };
    Sources {
        random: Box::new(random),
        unix_time: Box::new(|| Duration::ZERO),
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Carries datagrams until nobody has any more.
fn exchange(a: &mut Host, b: &mut Host) {
    while !a.out.datagrams.is_empty() || !b.out.datagrams.is_empty() {
        for (datagram, to, departure) in std::mem::take(&mut a.out.datagrams) {
            assert_eq!(to.remote, b.at);
            b.receive(a.at, departure.ecn, &datagram);
        }
        for (datagram, to, departure) in std::mem::take(&mut b.out.datagrams) {
            assert_eq!(to.remote, a.at);
            a.receive(b.at, departure.ecn, &datagram);
        }
    }
}

/// An IPv4 packet of `len` bytes from 10.0.0.`from` to 10.0.0.`to`.
fn packet(from: u8, to: u8, len: usize) -> Vec<u8> {
    let mut packet = vec![0x11; len];
    packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0]);
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet[12..20].copy_from_slice(&[10, 0, 0, from, 10, 0, 0, to]);
    packet
}

fn pair() -> (Host, Host) {
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    a.add(&b, &["10.0.0.2/32"]);
    b.add(&a, &["10.0.0.1/32"]);
    (a, b)
}

#[test]
fn ten_pings_cost_what_they_cost_in_the_kernel() {
    let (mut a, mut b) = pair();
    for _ in 0..10 {
        a.send(&packet(1, 2, 84));
        exchange(&mut a, &mut b);
        assert_eq!(b.delivered(), [packet(1, 2, 84)]);
        b.send(&packet(2, 1, 84));
        exchange(&mut a, &mut b);
        assert_eq!(a.delivered(), [packet(2, 1, 84)]);
    }
    assert_eq!(
        a.peer(b.public_key).tx_bytes,
        1428,
        "an initiation and ten padded pings"
    );
    assert_eq!(
        a.peer(b.public_key).rx_bytes,
        1372,
        "a response and ten padded pings"
    );
    assert_eq!(b.peer(a.public_key).rx_bytes, 1428);
    assert!(a.peer(b.public_key).last_handshake.is_some());
    assert!(b.peer(a.public_key).last_handshake.is_some());
}

#[test]
fn packets_wait_for_the_handshake_and_leave_in_order() {
    let (mut a, mut b) = pair();
    for len in 100..300 {
        a.send(&packet(1, 2, len));
    }
    assert_eq!(
        a.out.datagrams.len(),
        1,
        "one initiation, however many packets wait"
    );
    assert_eq!(a.dropped(Drop::StagedOverflow), 200 - 128);
    exchange(&mut a, &mut b);
    let lengths: Vec<usize> = b.delivered().iter().map(Vec::len).collect();
    assert_eq!(
        lengths,
        (172..300).collect::<Vec<_>>(),
        "the newest, oldest first"
    );
    assert_eq!(a.peer(b.public_key).staged_packets, 0);
}

#[test]
fn a_packet_that_says_it_has_no_length_is_no_keepalive() {
    let (mut a, mut b) = pair();
    let mut lie = packet(1, 2, 32);
    lie[2..4].fill(0);
    a.send(&lie);
    exchange(&mut a, &mut b);
    assert!(b.delivered().is_empty());
    assert_eq!(b.dropped(Drop::MalformedPacket), 1);
    a.send(&[]);
    assert_eq!(
        a.dropped(Drop::MalformedPacket),
        1,
        "not on the way in either"
    );
}

#[test]
fn padding_is_to_sixteen_but_not_past_the_route() {
    let (mut a, mut b) = pair();
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    a.engine.set_mtu(1300, 1299);
    for (len, padded) in [
        (84, 96),
        (96, 96),
        (1297, 1299),
        (1299, 1299),
        (1300, 1300),
        (1283, 1296),
    ] {
        a.send(&packet(1, 2, len));
        assert_eq!(a.out.datagrams[0].0.len(), padded + 32, "{len}");
        exchange(&mut a, &mut b);
    }
}

#[test]
fn an_endpoint_roams_with_every_authenticated_message_and_with_no_other() {
    let (mut a, mut b) = pair();
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    a.send(&packet(1, 2, 84));
    let (datagram, ..) = a.out.datagrams.pop().unwrap();
    let elsewhere: SocketAddr = "198.51.100.7:9".parse().unwrap();
    let mut forged = datagram.clone();
    forged[40] ^= 1;
    b.receive(elsewhere, Ecn::NotEct, &forged);
    assert_eq!(b.peer(a.public_key).endpoint, Some(a.at));
    assert_eq!(b.dropped(Drop::BadTag), 1);
    b.receive(elsewhere, Ecn::NotEct, &datagram);
    assert_eq!(b.peer(a.public_key).endpoint, Some(elsewhere));
    b.receive(a.at, Ecn::NotEct, &datagram);
    assert_eq!(
        b.peer(a.public_key).endpoint,
        Some(elsewhere),
        "a replay moves nothing"
    );
    assert_eq!(b.dropped(Drop::Replay), 1);
}

/// The first datagram that a host has put out; the others are lost.
fn first(host: &mut Host) -> Vec<u8> {
    let (datagram, ..) = std::mem::take(&mut host.out.datagrams).swap_remove(0);
    datagram
}

/// An initiation to its only peer.
fn initiation(host: &mut Host, now: Instant) -> [u8; HANDSHAKE_INITIATION_LEN] {
    let mut message = [0; HANDSHAKE_INITIATION_LEN];
    let Engine { peers, sources, .. } = &mut host.engine;
    let peer = peers.get_mut(peers.ids()[0]);
    let tunnel = peer.tunnel.as_mut().unwrap();
    assert!(tunnel.initiate(now, sources, &mut message));
    message
}

/// An attacker on the path records an initiation, the peer's host is started again, and the recording comes from
/// somewhere else.
#[test]
fn a_recorded_initiation_moves_no_endpoint_after_a_restart() {
    let (mut a, mut b) = pair();
    let elsewhere: SocketAddr = "198.51.100.66:66".parse().unwrap();
    a.send(&packet(1, 2, 84));
    let recorded = first(&mut a);
    b.receive(a.at, Ecn::NotEct, &recorded);
    b.out.datagrams.clear();
    let taken = b.peer(a.public_key).newest_initiation;
    assert!(taken.is_some());

    // The timestamp was not saved before a crash: it is answered, which leads to nothing.
    let mut b = Host::new(2);
    b.add(&a, &["10.0.0.1/32"]);
    b.receive(elsewhere, Ecn::NotEct, &recorded);
    assert_eq!(b.out.datagrams.len(), 1);
    assert_eq!(b.peer(a.public_key).endpoint, Some(a.at));

    // It was: nothing is answered, and the engine goes on to say so.
    let mut b = Host::new(2);
    b.add(&a, &["10.0.0.1/32"]);
    b.set_peer(PeerUpdate {
        newest_initiation: taken,
        ..PeerUpdate::new(a.public_key)
    });
    b.receive(elsewhere, Ecn::NotEct, &recorded);
    assert!(b.out.datagrams.is_empty());
    assert_eq!(b.dropped(Drop::BadHandshake), 1);
    assert_eq!(b.peer(a.public_key).endpoint, Some(a.at));
    assert_eq!(b.peer(a.public_key).newest_initiation, taken);
}

/// The proof is a session that the peer has confirmed; before it, what confirms one moves the endpoint.
#[test]
fn a_peer_that_has_moved_is_answered_where_it_is_and_found_there_once_it_confirms() {
    let (mut a, mut b) = pair();
    let mut now = clock();
    let ports: [SocketAddr; 2] = ["198.51.100.1:1", "198.51.100.1:2"].map(|it| it.parse().unwrap());
    let key = a.public_key;
    let endpoint = |b: &Host| b.peer(key).endpoint;
    b.receive_at(now, ports[0], Ecn::NotEct, &initiation(&mut a, now));
    let (response, to, _) = b.out.datagrams.pop().unwrap();
    assert_eq!((to.remote, endpoint(&b)), (ports[0], Some(a.at)));
    a.receive_at(now, b.at, Ecn::NotEct, &response);
    b.receive_at(now, ports[0], Ecn::NotEct, &first(&mut a));
    assert_eq!(endpoint(&b), Some(ports[0]));

    now += Duration::from_secs(10);
    b.receive_at(now, ports[1], Ecn::NotEct, &initiation(&mut a, now));
    assert_eq!(endpoint(&b), Some(ports[1]), "as in the kernel");
}

/// A peer whose clock was far ahead when it was last heard from is not locked out.
#[test]
fn a_timestamp_from_the_future_is_not_taken_over() {
    let (mut a, mut b) = pair();
    for (ahead_secs, is_answered) in [(601, true), (600, false)] {
        let future = Tai64n::new(Duration::from_secs(ahead_secs));
        b.set_peer(PeerUpdate {
            newest_initiation: Some(future),
            ..PeerUpdate::new(a.public_key)
        });
        let forget = PeerUpdate {
            remove: true,
            ..PeerUpdate::new(b.public_key)
        };
        a.set_peer(forget);
        a.add(&b, &["10.0.0.2/32"]);
        a.send(&packet(1, 2, 84));
        let initiation = first(&mut a);
        b.receive(a.at, Ecn::NotEct, &initiation);
        assert_eq!(b.out.datagrams.pop().is_some(), is_answered, "{ahead_secs}");
    }
}

#[test]
fn an_authenticated_message_counts_whatever_is_in_it() {
    let (mut a, mut b) = pair();
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    let route = a.engine.route(&packet(1, 2, 84)).unwrap();
    let received = b.peer(a.public_key).rx_bytes;
    let elsewhere: SocketAddr = "198.51.100.7:9".parse().unwrap();
    a.engine
        .encapsulate(clock(), route, &[0x11; 64], &mut a.out);
    let (datagram, ..) = a.out.datagrams.pop().unwrap();
    b.receive(elsewhere, Ecn::NotEct, &datagram);
    assert_eq!(b.dropped(Drop::MalformedPacket), 1);
    assert_eq!(b.peer(a.public_key).endpoint, Some(elsewhere));
    assert_eq!(b.peer(a.public_key).rx_bytes, received + 96);
}

#[test]
fn a_more_specific_prefix_of_another_peer_makes_a_spoof() {
    let (mut a, mut b) = (Host::new(1), Host::new(2));
    let c = Host::new(3);
    a.add(&b, &["10.0.0.0/24"]);
    b.add(&a, &["10.0.0.0/24"]);
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    assert_eq!(b.delivered().len(), 1);
    b.add(&c, &["10.0.0.1/32"]);
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    assert!(b.delivered().is_empty());
    assert_eq!(b.dropped(Drop::Spoof), 1);
}

#[test]
fn a_prefix_moves_to_the_peer_it_is_given_to() {
    let (mut a, b, c) = (Host::new(1), Host::new(2), Host::new(3));
    a.add(&b, &["10.0.0.2/32", "10.0.1.0/24"]);
    a.add(&c, &["10.0.0.2/32"]);
    let description = a.engine.describe();
    assert_eq!(description.peers[0].allowed_ips, [net("10.0.1.0/24")]);
    assert_eq!(description.peers[1].allowed_ips, [net("10.0.0.2/32")]);
    a.send(&packet(1, 2, 84));
    assert_eq!(a.out.datagrams[0].1.remote, c.at);
}

#[test]
fn preshared_keys_must_agree() {
    let (mut a, mut b) = pair();
    let key = || PresharedKey::from_bytes([9; 32]);
    a.set_peer(PeerUpdate {
        preshared_key: Some(key()),
        ..PeerUpdate::new(b.public_key)
    });
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    assert!(b.delivered().is_empty());
    assert_eq!(a.dropped(Drop::BadHandshake), 1);
    b.set_peer(PeerUpdate {
        preshared_key: Some(key()),
        ..PeerUpdate::new(a.public_key)
    });
    b.send(&packet(2, 1, 84));
    exchange(&mut a, &mut b);
    assert_eq!(a.delivered().len(), 1);
    assert_eq!(
        b.delivered().len(),
        1,
        "what had waited at the other end goes as well"
    );
}

#[test]
fn a_new_private_key_ends_the_sessions_and_drops_a_peer_with_the_same_key() {
    let (mut a, mut b) = pair();
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    let new_key = PrivateKey::from_bytes([7; 32]);
    let new_public = new_key.public_key();
    b.set_peer(PeerUpdate {
        endpoint: Some(a.at),
        allowed_ips: vec![AllowedIpChange::Add(net("10.0.0.1/32"))],
        ..PeerUpdate::new(new_public)
    });
    let update = Update {
        private_key: Some(Some(new_key)),
        ..Update::default()
    };
    a.engine.apply(clock(), &update, &mut a.out).unwrap();
    a.public_key = new_public;
    b.delivered();
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    assert_eq!(b.delivered().len(), 1);
    let update = Update {
        private_key: Some(Some(PrivateKey::from_bytes([2; 32]))),
        ..Update::default()
    };
    a.engine.apply(clock(), &update, &mut a.out).unwrap();
    assert!(
        a.engine.describe().peers.is_empty(),
        "b's own key is ours now"
    );
    a.add(&b, &["10.0.0.2/32"]);
    assert!(a.engine.describe().peers.is_empty());
}

#[test]
fn low_order_keys_get_no_handshake() {
    let mut a = Host::new(1);
    let mut key = [0; 32];
    key[0] = 1;
    a.set_peer(PeerUpdate {
        endpoint: Some("192.0.2.9:9".parse().unwrap()),
        persistent_keepalive_secs: Some(1),
        allowed_ips: vec![AllowedIpChange::Add(net("10.0.0.2/32"))],
        ..PeerUpdate::new(PublicKey::from_bytes(key))
    });
    a.send(&packet(1, 2, 84));
    assert!(a.out.datagrams.is_empty());
    assert_eq!(a.dropped(Drop::NoKey), 1);
}

#[test]
fn congestion_on_the_path_reaches_the_inner_packet() {
    let (mut a, mut b) = pair();
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    b.delivered();
    let mut capable = packet(1, 2, 84);
    Ecn::Ect0.write(&mut capable);
    a.send(&capable);
    let (datagram, _, departure) = a.out.datagrams.pop().unwrap();
    assert_eq!(
        departure.ecn,
        Ecn::Ect0,
        "the outer header says what the inner one says"
    );
    b.receive(a.at, Ecn::Ce, &datagram);
    let mut marked = capable.clone();
    Ecn::Ce.write(&mut marked);
    assert_eq!(b.delivered(), [marked]);
    a.send(&packet(1, 2, 84));
    let (datagram, ..) = a.out.datagrams.pop().unwrap();
    b.receive(a.at, Ecn::Ce, &datagram);
    assert!(b.delivered().is_empty());
    assert_eq!(b.dropped(Drop::EcnCongestion), 1);
}

#[test]
fn persistent_keepalive_starts_at_once_and_goes_on_through_the_timer() {
    let (mut a, mut b) = pair();
    a.set_peer(PeerUpdate {
        persistent_keepalive_secs: Some(25),
        ..PeerUpdate::new(b.public_key)
    });
    exchange(&mut a, &mut b);
    assert!(
        a.peer(b.public_key).last_handshake.is_some(),
        "it needs a session to be sent on"
    );
    let sent = a.peer(b.public_key).tx_bytes;
    let (due, _) = a.engine.poll_timeout().unwrap();
    a.engine.handle_timeout(due, &mut a.out);
    assert!(a.out.datagrams.is_empty());
    a.engine
        .handle_timeout(due + Duration::from_secs(25), &mut a.out);
    assert_eq!(a.peer(b.public_key).tx_bytes, sent + 32);
}

#[test]
fn our_own_datagrams_do_not_circle() {
    let (mut a, b) = (Host::new(1), Host::new(2));
    a.add(&b, &["192.0.2.0/24"]);
    a.engine.set_listen_port(4242);
    let mut looped = packet(1, 2, 84);
    looped[9] = 17;
    looped[16..20].copy_from_slice(&[192, 0, 2, 2]);
    looped[20..24].copy_from_slice(&[16, 146, 0, 2]);
    a.send(&looped);
    assert_eq!(a.dropped(Drop::RoutingLoop), 1);
    looped[21] = 147;
    a.send(&looped);
    assert_eq!(a.dropped(Drop::RoutingLoop), 1);
}

#[test]
fn hostile_datagrams_cost_a_counter() {
    let (mut a, mut b) = pair();
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    let before: u64 = b.engine.snapshot().drops.iter().map(|(_, n)| n).sum();
    let mut hostile = 0;
    for len in 0..200usize {
        for kind in 0..6u8 {
            let mut datagram = vec![kind; len];
            if let Some(reserved) = datagram.get_mut(1..4) {
                reserved.fill(0);
            }
            b.receive(a.at, Ecn::NotEct, &datagram);
            hostile += 1;
        }
    }
    let after: u64 = b.engine.snapshot().drops.iter().map(|(_, n)| n).sum();
    assert_eq!(after - before, hostile);
    a.send(&packet(1, 2, 84));
    b.delivered();
    exchange(&mut a, &mut b);
    assert_eq!(b.delivered().len(), 1);
}

#[test]
fn removing_a_peer_leaves_nothing_of_it() {
    let (mut a, mut b) = pair();
    a.send(&packet(1, 2, 84));
    exchange(&mut a, &mut b);
    a.set_peer(PeerUpdate {
        remove: true,
        ..PeerUpdate::new(b.public_key)
    });
    a.send(&packet(1, 2, 84));
    assert_eq!(a.dropped(Drop::NoPeer), 1);
    b.send(&packet(2, 1, 84));
    exchange(&mut a, &mut b);
    assert!(a.delivered().is_empty());
    assert_eq!(a.dropped(Drop::UnknownSession), 1);
    let (due, _) = a.engine.poll_timeout().unwrap();
    a.engine.handle_timeout(due, &mut a.out);
    assert_eq!(a.engine.poll_timeout(), None, "nobody is awake");
}
