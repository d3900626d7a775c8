//! Two shards that a test carries everything between.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ployz_dataplane::offload::{Capabilities, TunBuffer};
use ployz_dataplane::{Arrival, Egress, PacketIo, Received, SendBatch, Shard};
use ployz_engine::{
    AllowedIpChange, Engine, PeerUpdate, PrivateKey, PublicKey, ShardMap, Sources, Update, WallNs,
};

/// The test carries everything itself; the plain way out is for when buffers run out, which they must not.
#[derive(Default)]
pub(crate) struct NoIo {
    /// What the socket says that waits.
    pub(crate) backlog: usize,
}

impl PacketIo for NoIo {
    fn send(&mut self, _: &mut SendBatch) -> io::Result<()> {
        panic!("out of batches");
    }

    fn send_singly(&mut self, _: &mut SendBatch) -> io::Result<()> {
        panic!("out of batches");
    }

    fn write(&mut self, _: &TunBuffer) -> io::Result<()> {
        panic!("out of TUN buffers");
    }

    fn departure(&mut self, _: Instant) -> Option<(u32, WallNs)> {
        None
    }

    fn backlog(&self, _: SocketAddr) -> usize {
        self.backlog
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is a driver")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

pub(crate) fn key(n: u8) -> PrivateKey {
    PrivateKey::from_bytes([n; 32])
}

pub(crate) fn shard(own: u8, peer: PublicKey) -> Shard<NoIo> {
    let mut seed = u32::from(own);
    let random = move |bytes: &mut [u8]| {
        for byte in bytes {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (seed >> 24) as u8;
        }
    };
    let sources = Sources {
        random: Box::new(random),
        unix_time: Box::new(|| Duration::ZERO),
    };
    let engine = Engine::new(ShardMap::ONLY, sources);
    let egress = Egress::new(
        NoIo::default(),
        Capabilities {
            tcp: true,
            udp: true,
        },
        true,
    );
    let mut shard = Shard::new(engine, egress);
    let peer = PeerUpdate {
        endpoint: Some(([192, 0, 2, 3 - own], 1).into()),
        allowed_ips: vec![AllowedIpChange::Add(
            format!("10.0.0.{}/32", 3 - own).parse().expect("a prefix"),
        )],
        ..PeerUpdate::new(peer)
    };
    let update = Update {
        private_key: Some(Some(key(own))),
        peers: vec![peer],
        ..Update::default()
    };
    shard.apply(clock(), &update).expect("room for one peer");
    shard
}

/// Carries every batch of `from` to `to`; packets that `to` writes to its TUN are counted in wire packets.
pub(crate) fn carry(
    now: Instant,
    from: &mut Shard<NoIo>,
    from_ip: u8,
    to: &mut Shard<NoIo>,
) -> usize {
    from.end_turn(now);
    while let Some(mut batch) = from.egress_mut().next_batch() {
        let received = Received {
            segment_len: (batch.count() > 1).then_some(batch.segment_len()),
            ..Received::default()
        };
        let len = batch.bytes().len();
        let arrival = Arrival {
            from: ([192, 0, 2, from_ip], 1).into(),
            received,
            len,
        };
        to.on_datagrams(now, &arrival, batch.bytes_mut());
        from.egress_mut().sent(batch, Ok(()));
    }
    to.end_turn(now);
    let mut bytes = 0;
    while let Some(buffer) = to.egress_mut().next_write() {
        bytes += buffer.as_bytes().len() - 10;
        to.egress_mut().written(buffer, Ok(()));
    }
    bytes
}

pub(crate) const SEGMENT_LEN: u16 = 1368;
pub(crate) const SEGMENTS: u16 = 45;

/// A TUN read: a vnet header that asks for TSO, and 45 segments of TCP with timestamps.
pub(crate) fn tcp_super_packet(from: u8, to: u8) -> Vec<u8> {
    let mut read = vec![1, 1, 52, 0];
    read.extend(SEGMENT_LEN.to_le_bytes());
    read.extend([20, 0, 16, 0]);
    let total_len = 52 + SEGMENT_LEN * SEGMENTS;
    let mut ip = vec![0x45, 0];
    ip.extend(total_len.to_be_bytes());
    ip.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, from, 10, 0, 0, to]);
    let checksum = !folded_sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut pseudo = ip[12..20].to_vec();
    pseudo.extend([0, 6]);
    pseudo.extend((total_len - 20).to_be_bytes());
    read.extend(ip);
    read.extend([
        0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1, 0, 0, 0, 2, 0x80, 0x10, 1, 0,
    ]);
    read.extend(folded_sum(&pseudo).to_be_bytes());
    read.extend([0, 0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    read.resize(10 + usize::from(total_len), 0xab);
    // The kernel's buffer has room for padding behind the packet.
    read.reserve(16);
    read
}

/// A TUN read of one small UDP packet, complete with its checksum (zero: none).
pub(crate) fn udp_packet(from: u8, to: u8) -> Vec<u8> {
    let mut read = vec![0; 10];
    let mut ip = vec![
        0x45, 0, 0, 92, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, from, 10, 0, 0, to,
    ];
    let checksum = !folded_sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    read.extend(ip);
    read.extend([0x12, 0x34, 0x56, 0x78, 0, 72, 0, 0]);
    read.resize(10 + 92, 0xcd);
    read
}

fn folded_sum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|c| u32::from(u16::from_be_bytes([c[0], c[1]])))
        .sum();
    ((sum & 0xffff) + (sum >> 16)) as u16
}
