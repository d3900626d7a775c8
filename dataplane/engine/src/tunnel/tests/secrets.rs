//! Keys after their end: neither freed memory nor the stack has any.

use std::fs::{File, read_to_string};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ployz_memory::{Watch, Watching};

use crate::tests::clock;
use crate::tunnel::noise::tests::Known;
use crate::{
    AllowedIpChange, Departure, Drop, Ecn, Endpoint, Engine, PeerUpdate, PresharedKey, PrivateKey,
    PublicKey, ShardMap, Sink, Sources, Update,
};

#[global_allocator]
static ALLOCATOR: Watching = Watching::new();

const UNIX_TIME: Duration = Duration::from_secs(1_000);
/// More than lists of peers have room for at first.
const STRANGERS: u8 = 40;

/// The keys in hexadecimal digits: it is the engine's business to read them without leaving them anywhere.
const FIRST: &str = "58c0e2b7a1f4936d0e7c25489bd3fa16874dc05e39a2f16b7e04d89351ac6f42";
const SECOND: &str = "90a7d21c4f6be83359017cf8e4a26d5b18c3f09e72b4a65d03fe81c79d245a6e";
const PRESHARED: &str = "e3195f8a0c7db264fa31780e9c5db4268f70ea13c49b5d26738ef0a1529cd64b";

/// The bytes that an end drew for ephemeral keys; only the run that learns them takes notes.
type Drawn = Option<Arc<Mutex<Vec<[u8; 32]>>>>;

fn sources(seed: u64, drawn: Drawn) -> Sources {
    let mut state = seed;
    let random = move |bytes: &mut [u8]| {
        for byte in &mut *bytes {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        if let (Some(drawn), Ok(key)) = (&drawn, (&*bytes).try_into()) {
            drawn.lock().unwrap().push(key);
        }
    };
    Sources {
        random: Box::new(random),
        unix_time: Box::new(|| UNIX_TIME),
    }
}

#[derive(Default)]
struct Sent(Vec<Vec<u8>>);

impl Sink for Sent {
    fn datagram(&mut self, len: usize, _: &Endpoint, _: Departure, write: impl FnOnce(&mut [u8])) {
        let mut room = vec![0; len];
        write(&mut room);
        self.0.push(room);
    }

    fn part(&mut self) {}

    fn packet(&mut self, _: &[u8]) -> Result<(), Drop> {
        Ok(())
    }
}

/// The engines of one interface.
struct End {
    engines: Vec<Engine>,
    sent: Sent,
    at: Endpoint,
}

impl End {
    fn new(number: u8, shards: usize, key: &str, drawn: &Drawn) -> Self {
        let engine = |map: ShardMap| {
            let seed = u64::from(number) << 32 | map.shard() as u64;
            Engine::new(map, sources(seed, drawn.clone()))
        };
        let mut end = Self {
            engines: ShardMap::all(shards).map(engine).collect(),
            sent: Sent::default(),
            at: Endpoint::configured(([192, 0, 2, number], 1).into()),
        };
        end.apply(Update {
            private_key: Some(PrivateKey::from_hex(key).unwrap()),
            ..Update::default()
        });
        end
    }

    fn apply(&mut self, update: Update) {
        for engine in &mut self.engines {
            engine.apply(clock(), &update, &mut self.sent).unwrap();
        }
    }

    fn public_key(&self) -> PublicKey {
        self.engines[0].public_key().unwrap()
    }

    fn meet(&mut self, peer: PublicKey, at: Endpoint, number: u8) {
        let prefix = format!("10.0.0.{number}/32").parse().unwrap();
        let peer = PeerUpdate {
            preshared_key: Some(PresharedKey::from_hex(PRESHARED).unwrap()),
            endpoint: Some(at.remote),
            allowed_ips: vec![AllowedIpChange::Add(prefix)],
            ..PeerUpdate::new(peer)
        };
        self.apply(Update {
            peers: vec![peer],
            ..Update::default()
        });
    }

    /// To the `to`-th host, from the shard that has it.
    fn send(&mut self, now: Instant, to: u8) {
        let packet = [
            69,
            0,
            0,
            20,
            0,
            0,
            0,
            0,
            64,
            1,
            0,
            0,
            10,
            0,
            0,
            3 - to,
            10,
            0,
            0,
            to,
        ];
        for engine in &mut self.engines {
            if let Some(route) = engine.route(&packet) {
                engine.encapsulate(now, route, &packet, &mut self.sent);
            }
        }
    }

    fn take(&mut self, now: Instant, from: Endpoint, mut datagram: Vec<u8>) {
        let shards = self.engines.len();
        let shard = match datagram[0] {
            3 | 4 => usize::from(datagram[7]) % shards,
            _ => 0,
        };
        let outer = Ecn::NotEct.into();
        self.engines[shard].handle_datagram(now, &from, outer, &mut datagram, &mut self.sent);
        while let Some(message) = self.engines.iter_mut().find_map(Engine::poll_handoff) {
            let home = &mut self.engines[message.shard()];
            home.handle_handoff(now, &message, &mut self.sent);
        }
    }
}

fn exchange(now: Instant, a: &mut End, b: &mut End) {
    while !a.sent.0.is_empty() || !b.sent.0.is_empty() {
        for datagram in std::mem::take(&mut a.sent.0) {
            b.take(now, a.at, datagram);
        }
        for datagram in std::mem::take(&mut b.sent.0) {
            a.take(now, b.at, datagram);
        }
    }
}

/// Two ends that meet, talk, renew their session, change keys, part, and are gone. The first one begins.
fn lives(drawn: [Drawn; 2]) {
    let mut now = clock();
    let [of_a, of_b] = &drawn;
    let mut a = End::new(1, 1, FIRST, of_a);
    let mut b = End::new(2, 3, SECOND, of_b);
    let (key_a, key_b) = (a.public_key(), b.public_key());
    a.meet(key_b, b.at, 2);
    b.meet(key_a, a.at, 1);
    for number in 0..STRANGERS {
        for end in [&mut a, &mut b] {
            let at = end.at;
            end.meet(PublicKey::from_bytes([9 + number; 32]), at, 9 + number);
        }
    }
    a.send(now, 2);
    exchange(now, &mut a, &mut b);
    b.send(now, 1);
    exchange(now, &mut a, &mut b);
    let snapshot = b.engines.iter().flat_map(|it| it.snapshot().peers);
    let taken = snapshot.filter(|peer| peer.newest_initiation.is_some());
    assert_eq!(taken.count(), 1, "there was a handshake");
    for end in [&a, &b] {
        let mut described = end.engines.iter().map(Engine::describe);
        assert!(described.all(|it| it.private_key.is_some()));
    }
    now += Duration::from_secs(121);
    a.send(now, 2);
    now += Duration::from_secs(1);
    a.engines[0].handle_timeout(now, &mut a.sent);
    exchange(now, &mut a, &mut b);
    a.apply(Update {
        peers: vec![PeerUpdate {
            preshared_key: Some(None),
            ..PeerUpdate::new(key_b)
        }],
        ..Update::default()
    });
    b.apply(Update {
        replace_peers: true,
        private_key: Some(PrivateKey::from_hex(PRESHARED).unwrap()),
        ..Update::default()
    });
}

/// Runs in a thread whose stack is nobody's afterwards.
fn learnt() -> Vec<Vec<u8>> {
    let learn = || {
        let drawn: [Arc<Mutex<Vec<_>>>; 2] = Default::default();
        lives(drawn.clone().map(Some));
        let first = |drawn: &Mutex<Vec<[u8; 32]>>| drawn.lock().unwrap()[0];
        let [a, b] = &drawn;
        let known = Known {
            initiator: &PrivateKey::from_hex(FIRST).unwrap().unwrap(),
            responder: &PrivateKey::from_hex(SECOND).unwrap().unwrap(),
            preshared_key: &PresharedKey::from_hex(PRESHARED).unwrap().unwrap(),
            ephemerals: [first(a), first(b)],
            unix_time: UNIX_TIME,
        };
        let mut secrets = known.secrets();
        for drawn in &drawn {
            secrets.extend(drawn.lock().unwrap().iter().map(|it| it.to_vec()));
        }
        secrets
    };
    thread::spawn(learn).join().unwrap()
}

#[test]
fn no_key_is_left_in_freed_memory() {
    let secrets = learnt();
    let secrets: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
    let watch = Watch::begin(&secrets);
    lives([None, None]);
    let found = watch.found();
    assert!(found.is_empty(), "{} blocks: {}", found.len(), found[0]);
}

#[test]
fn a_handshake_leaves_nothing_on_the_stack() {
    let secrets = learnt();
    lives([None, None]);
    let stack = own_stack();
    for (number, secret) in secrets.iter().enumerate() {
        let (words, _) = secret.as_chunks::<8>();
        for word in words {
            let at = stack.windows(8).rposition(|window| window == word);
            assert_eq!(
                at.map(|at| stack.len() - at),
                None,
                "secret {number} of {}",
                secrets.len()
            );
        }
    }
}

/// A copy of this thread's stack, frames that have ended included.
fn own_stack() -> Vec<u8> {
    let here = 0_u8;
    let here = (&raw const here).addr();
    let maps = read_to_string("/proc/self/maps").unwrap();
    let ranges = maps.lines().filter_map(|line| {
        let (begin, end) = line.split_whitespace().next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some(address(begin)?..address(end)?)
    });
    let range = ranges.into_iter().find(|it| it.contains(&here)).unwrap();
    let mut stack = vec![0; range.len()];
    let memory = File::open("/proc/self/mem").unwrap();
    memory
        .read_exact_at(&mut stack, range.start as u64)
        .unwrap();
    // Most of it was never used.
    let first = stack.iter().position(|byte| *byte != 0);
    stack.split_off(first.unwrap())
}
