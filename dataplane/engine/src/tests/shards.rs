//! Several engines of one interface, against hosts with one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::forger::Forger;
use super::*;
use crate::{HANDOFFS_MAX, Steer};

const SHARDS: usize = 3;

/// All engines of an interface, with the steering that its sockets and its TUN do.
struct Interface {
    engines: Vec<Engine>,
    at: SocketAddr,
    public_key: PublicKey,
    out: Output,
}

impl Interface {
    fn new(n: u8) -> Self {
        let engine =
            |shard_map: ShardMap| Engine::new(shard_map, sources(shard_map.shard() as u32));
        let mut interface = Self {
            engines: ShardMap::all(SHARDS).map(engine).collect(),
            at: format!("192.0.2.{n}:{n}").parse().unwrap(),
            public_key: PrivateKey::from_bytes([n; 32]).public_key(),
            out: Output::default(),
        };
        interface.apply(&Update {
            private_key: Some(Some(PrivateKey::from_bytes([n; 32]))),
            ..Update::default()
        });
        interface
    }

    fn apply(&mut self, update: &Update) {
        for engine in &mut self.engines {
            engine.apply(clock(), update, &mut self.out).unwrap();
        }
    }

    fn add(&mut self, other: &Host, prefix: &str) {
        self.apply(&Update {
            peers: vec![PeerUpdate {
                endpoint: Some(other.at),
                allowed_ips: vec![AllowedIpChange::Add(net(prefix))],
                ..PeerUpdate::new(other.public_key)
            }],
            ..Update::default()
        });
    }

    fn home_of(&self, peer: PublicKey) -> usize {
        self.engines[0].shard_map.home_of(&peer)
    }

    fn send_from(&mut self, shard: usize, packet: &[u8]) {
        let engine = &mut self.engines[shard];
        if let Some(route) = engine.route(packet) {
            engine.encapsulate(clock(), route, packet, &mut self.out);
        }
    }

    /// As `sys/reuseport.rs` does it.
    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        let shard = match datagram[0] {
            3 | 4 => usize::from(datagram[7]) % SHARDS,
            _ => 0,
        };
        self.receive_at(shard, from, datagram);
        self.hand_off();
    }

    fn receive_at(&mut self, shard: usize, from: SocketAddr, datagram: &[u8]) {
        let from = Endpoint::configured(from);
        self.engines[shard].handle_datagram(
            clock(),
            &from,
            Ecn::NotEct.into(),
            &mut datagram.to_vec(),
            &mut self.out,
        );
    }

    /// How many messages changed hands.
    fn hand_off(&mut self) -> usize {
        let mut count = 0;
        while let Some(message) = self.engines.iter_mut().find_map(Engine::poll_handoff) {
            let home = &mut self.engines[message.shard()];
            home.handle_handoff(clock(), &message, &mut self.out);
            count += 1;
        }
        count
    }

    fn exchange(&mut self, host: &mut Host) {
        while !self.out.datagrams.is_empty() || !host.out.datagrams.is_empty() {
            for (datagram, _, departure) in std::mem::take(&mut self.out.datagrams) {
                host.receive(self.at, departure.ecn, &datagram);
            }
            for (datagram, ..) in std::mem::take(&mut host.out.datagrams) {
                self.receive(host.at, &datagram);
            }
        }
    }

    fn dropped(&self) -> u64 {
        let drops = self.engines.iter().map(|engine| engine.snapshot().drops);
        drops
            .flat_map(|it| it.iter().map(|(_, n)| n).collect::<Vec<_>>())
            .sum()
    }
}

/// An interface at 10.0.0.1, and a host for every shard that is at home in it, at 10.0.0.N.
fn interface_and_hosts() -> (Interface, Vec<Host>) {
    let mut interface = Interface::new(1);
    let mut hosts: Vec<Host> = (2..100).map(Host::new).collect();
    let mut shards: Vec<usize> = (0..SHARDS).collect();
    hosts.retain(|host| {
        let home = interface.home_of(host.public_key);
        let is_missing = shards.contains(&home);
        shards.retain(|shard| *shard != home);
        is_missing
    });
    assert_eq!(hosts.len(), SHARDS);
    for host in &mut hosts {
        interface.add(host, &format!("10.0.0.{}/32", host.at.port()));
        host.set_peer(PeerUpdate {
            endpoint: Some(interface.at),
            allowed_ips: vec![AllowedIpChange::Add(net("10.0.0.1/32"))],
            ..PeerUpdate::new(interface.public_key)
        });
    }
    (interface, hosts)
}

fn number(host: &Host) -> u8 {
    host.at.port() as u8
}

#[test]
fn a_peer_has_one_tunnel_and_its_indices_say_where() {
    let (interface, hosts) = interface_and_hosts();
    for host in &hosts {
        let home = interface.home_of(host.public_key);
        for (shard, engine) in interface.engines.iter().enumerate() {
            let id = engine.peers.by_key(&host.public_key).unwrap();
            let peer = engine.peers.get(id);
            assert_eq!(peer.tunnel.is_some(), shard == home);
            assert_eq!((peer.index >> 16) as usize % SHARDS, home);
        }
    }
}

#[test]
fn whoever_begins_every_peer_gets_through_to_its_home() {
    for we_begin in [true, false] {
        let (mut interface, mut hosts) = interface_and_hosts();
        for host in &mut hosts {
            let home = interface.home_of(host.public_key);
            let (there, back) = (packet(1, number(host), 96), packet(number(host), 1, 96));
            if we_begin {
                interface.send_from(home, &there);
            } else {
                host.send(&back);
            }
            interface.exchange(host);
            interface.send_from(home, &there);
            host.send(&back);
            interface.exchange(host);
            assert_eq!(host.delivered().len(), 1 + usize::from(we_begin));
            let arrived = std::mem::take(&mut interface.out.packets);
            assert_eq!(arrived.len(), 1 + usize::from(!we_begin));
        }
        assert_eq!(interface.dropped(), 0);
    }
}

#[test]
fn a_message_that_came_to_another_shard_still_passes_the_gate() {
    let (mut interface, mut hosts) = interface_and_hosts();
    for host in &mut hosts {
        host.send(&packet(number(host), 1, 96));
        let (initiation, ..) = host.out.datagrams.pop().unwrap();
        interface.receive_at(2, host.at, &initiation);
        let at_home_at_the_gate = interface.home_of(host.public_key) == 0;
        assert_eq!(interface.hand_off(), 2 - usize::from(at_home_at_the_gate));
        interface.exchange(host);
    }
    assert_eq!(interface.out.packets.len(), SHARDS);
    assert_eq!(interface.dropped(), 0);
}

#[test]
fn a_cookie_comes_to_the_tunnel_that_asked() {
    let (mut interface, mut hosts) = interface_and_hosts();
    for host in &mut hosts {
        let home = interface.home_of(host.public_key);
        interface.send_from(home, &packet(1, number(host), 96));
        let (initiation, ..) = interface.out.datagrams.pop().unwrap();
        let (mut flood, now) = (Forger::new(&host.public_key, 1), clock());
        for port in 1..700 {
            let from = ([203, 0, 113, 1], port).into();
            host.receive_at(now, from, Ecn::NotEct, &flood.message());
        }
        host.out.datagrams.clear();
        let from = "203.0.113.2:1".parse().unwrap();
        host.receive_at(now, from, Ecn::NotEct, &initiation);
        let is_cookie = |(datagram, ..): &&(Vec<u8>, _, _)| datagram.len() == 64;
        let (cookie, ..) = host.out.datagrams.iter().find(is_cookie).unwrap().clone();
        interface.receive(host.at, &cookie);
        assert_eq!(interface.dropped(), 0);
        interface.receive_at((home + 1) % SHARDS, host.at, &cookie);
        assert_eq!(
            interface.dropped(),
            1,
            "nobody else knows what to do with it"
        );
        interface.engines[(home + 1) % SHARDS].drops = Default::default();
    }
}

#[test]
fn what_waits_for_another_shard_is_bounded() {
    let (mut interface, mut hosts) = interface_and_hosts();
    let host = &mut hosts[0];
    host.send(&packet(number(host), 1, 96));
    let (initiation, ..) = host.out.datagrams.pop().unwrap();
    for _ in 0..HANDOFFS_MAX + 7 {
        interface.receive_at(1, host.at, &initiation);
    }
    let drops = interface.engines[1].snapshot().drops;
    assert_eq!(drops.get(Drop::Handoff), 7);
    assert!(interface.hand_off() >= HANDOFFS_MAX);
}

#[test]
fn a_packet_in_the_wrong_queue_is_not_sent() {
    let (mut interface, hosts) = interface_and_hosts();
    let home = interface.home_of(hosts[0].public_key);
    let stray = (home + 1) % SHARDS;
    interface.send_from(stray, &packet(1, number(&hosts[0]), 96));
    assert!(interface.out.datagrams.is_empty());
    let drops = interface.engines[stray].snapshot().drops;
    assert_eq!(drops.get(Drop::WrongShard), 1);
}

/// Few peers and prefixes, so that they collide.
fn change() -> impl Strategy<Value = Update> {
    let allowed_ip = (0..12u8, 24..=32u8, any::<bool>()).prop_map(|(n, len, add)| {
        let prefix = IpNet::new([10, 0, 0, n << 4].into(), len).unwrap();
        if add {
            AllowedIpChange::Add(prefix)
        } else {
            AllowedIpChange::Remove(prefix)
        }
    });
    let allowed_ips = prop::collection::vec(allowed_ip, 0..6);
    let peer = (0..5u8, allowed_ips, any::<(bool, bool)>(), 0..6u8);
    let peer = peer.prop_map(
        |(n, allowed_ips, (replace, update_only), fate)| PeerUpdate {
            remove: fate == 0,
            update_only,
            replace_allowed_ips: replace,
            allowed_ips,
            ..PeerUpdate::new(PrivateKey::from_bytes([n + 1; 32]).public_key())
        },
    );
    (prop::collection::vec(peer, 0..4), 0..8u8, 0..5u8).prop_map(|(peers, fate, own)| Update {
        // Now and then with the key of a peer, who is dropped then.
        private_key: (fate == 1).then(|| Some(PrivateKey::from_bytes([own + 1; 32]))),
        replace_peers: fate == 0,
        peers,
        ..Update::default()
    })
}

proptest! {
    /// The stupid twin reads the whole table anew every time.
    #[test]
    fn the_changes_of_steering_add_up_to_the_table(updates in prop::collection::vec(change(), 1..12)) {
        let mut interface = Interface::new(9);
        let mut steered = BTreeMap::new();
        for update in &updates {
            interface.apply(update);
            for Steer { prefix, shard } in interface.engines[0].take_steering() {
                match shard {
                    Some(shard) => steered.insert(prefix, shard),
                    None => steered.remove(&prefix),
                };
            }
            let peers = interface.engines[0].describe().peers;
            let table: BTreeMap<IpNet, usize> = peers
                .iter()
                .flat_map(|peer| {
                    let home = interface.home_of(peer.state.public_key);
                    peer.allowed_ips.iter().map(move |prefix| (*prefix, home))
                })
                .collect();
            prop_assert_eq!(&steered, &table);
            for other in &mut interface.engines[1..] {
                prop_assert_eq!(other.take_steering(), []);
            }
        }
    }
}
