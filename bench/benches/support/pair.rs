//! Two shards with a session between them: the whole data plane, and memory where the kernel is.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ployz_dataplane::offload::{Capabilities, TunBuffer};
use ployz_dataplane::{Arrival, Egress, PacketIo, Received, SendBatch, Shard};
use ployz_engine::{
    AllowedIpChange, Engine, PeerUpdate, PrivateKey, ShardMap, Sources, Update, WallNs,
};

use super::packets::{A, B, udp_read};

pub(crate) struct Pair {
    a: Host,
    b: Host,
    read: Vec<u8>,
}

struct Host {
    shard: Shard<Nowhere>,
    at: SocketAddr,
}

/// Never used: both hosts take their output out of the egress in time.
#[derive(Debug)]
struct Nowhere;

impl Pair {
    pub(crate) fn new() -> Self {
        let (keys_a, keys_b) = ([1; 32], [2; 32]);
        let mut pair = Self {
            a: Host::new(keys_a, "192.0.2.1:51820", keys_b, "192.0.2.2:51820", B),
            b: Host::new(keys_b, "192.0.2.2:51820", keys_a, "192.0.2.1:51820", A),
            read: Vec::new(),
        };
        // The first packet waits for the handshake that it starts; both sides speak once.
        pair.carry(&udp_read(64));
        for _ in 0..3 {
            deliver(&mut pair.b, &mut pair.a);
            deliver(&mut pair.a, &mut pair.b);
        }
        assert_eq!(pair.carry(&udp_read(64)), 1, "there is a session");
        pair
    }

    /// Turns a read of A's TUN into datagrams that are received nowhere. The copy stands for the
    /// kernel's: what is read is overwritten.
    pub(crate) fn seal(&mut self, read: &[u8]) -> usize {
        self.read.clear();
        self.read.extend_from_slice(read);
        let now = clock();
        self.a.shard.on_tun_read(now, &mut self.read);
        self.a.shard.end_turn(now);
        let mut datagrams = 0;
        while let Some(batch) = self.a.shard.egress_mut().next_batch() {
            datagrams += batch.count();
            self.a.shard.egress_mut().sent(batch, Ok(()));
        }
        datagrams
    }

    /// Carries a read of A's TUN all the way to writes of B's TUN; returns their number.
    pub(crate) fn carry(&mut self, read: &[u8]) -> usize {
        self.read.clear();
        self.read.extend_from_slice(read);
        let now = clock();
        self.a.shard.on_tun_read(now, &mut self.read);
        self.a.shard.end_turn(now);
        deliver(&mut self.a, &mut self.b)
    }
}

impl Host {
    fn new(key: [u8; 32], at: &str, peer: [u8; 32], peer_at: &str, allowed: Ipv4Addr) -> Self {
        let sources = Sources {
            random: Box::new(rand::fill::<[u8]>),
            unix_time: Box::new(|| Duration::ZERO),
        };
        let engine = Engine::new(ShardMap::ONLY, sources);
        let all = Capabilities {
            tcp: true,
            udp: true,
        };
        let mut shard = Shard::new(engine, Egress::new(Nowhere, all, true));
        let mut peer = PeerUpdate::new(PrivateKey::from_bytes(peer).public_key());
        peer.endpoint = Some(peer_at.parse().unwrap());
        peer.allowed_ips = vec![AllowedIpChange::Add(
            format!("{allowed}/32").parse().unwrap(),
        )];
        let private_key = Some(Some(PrivateKey::from_bytes(key)));
        let update = Update {
            private_key,
            peers: vec![peer],
            ..Update::default()
        };
        shard.apply(clock(), &update).unwrap();
        Self {
            shard,
            at: at.parse().unwrap(),
        }
    }
}

/// Carries what `from` has to send to `to`, and returns how often `to` writes to its TUN.
fn deliver(from: &mut Host, to: &mut Host) -> usize {
    let now = clock();
    from.shard.end_turn(now);
    while let Some(mut batch) = from.shard.egress_mut().next_batch() {
        let segment_len = Some(batch.segment_len());
        let received = Received {
            segment_len,
            ..Received::default()
        };
        let arrival = Arrival {
            from: from.at,
            received,
            len: batch.bytes().len(),
        };
        to.shard.on_datagrams(now, &arrival, batch.bytes_mut());
        from.shard.egress_mut().sent(batch, Ok(()));
    }
    to.shard.end_turn(now);
    let mut writes = 0;
    while let Some(buffer) = to.shard.egress_mut().next_write() {
        writes += 1;
        to.shard.egress_mut().written(buffer, Ok(()));
    }
    writes
}

impl PacketIo for Nowhere {
    fn send(&mut self, _: &mut SendBatch) -> io::Result<()> {
        Ok(())
    }

    fn send_singly(&mut self, _: &mut SendBatch) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, _: &TunBuffer) -> io::Result<()> {
        Ok(())
    }

    fn departure(&mut self, _: Instant) -> Option<(u32, WallNs)> {
        None
    }

    fn backlog(&self, _: SocketAddr) -> usize {
        0
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is a driver")]
fn clock() -> Instant {
    Instant::now()
}
