//! A shard under attack, and engines that know how to speak to it.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ployz_dataplane::offload::{Capabilities, TunBuffer};
use ployz_dataplane::{Arrival, Egress, PacketIo, Received, SendBatch, Shard};
use ployz_engine::{
    AllowedIpChange, Departure, Drop, Ecn, Endpoint, Engine, PeerUpdate, PrivateKey, ShardMap,
    Sink, Snapshot, Sources, Update, WallNs,
};

/// Where the `n`-th host is.
pub(crate) fn address(n: u8) -> SocketAddr {
    ([192, 0, 2, n], 1000 + u16::from(n)).into()
}

pub(crate) fn private_key(n: u8) -> PrivateKey {
    PrivateKey::from_bytes([n; 32])
}

/// The one clock; a target adds to it.
#[expect(clippy::disallowed_methods, reason = "a fuzz target is a driver")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

pub(crate) fn peer(n: u8, allowed_ips: &[&str]) -> PeerUpdate {
    let add = |prefix: &&str| AllowedIpChange::Add(prefix.parse().expect("a prefix"));
    PeerUpdate {
        endpoint: Some(address(n)),
        allowed_ips: allowed_ips.iter().map(add).collect(),
        ..PeerUpdate::new(private_key(n).public_key())
    }
}

fn update(own: u8, peers: Vec<PeerUpdate>) -> Update {
    Update {
        private_key: Some(Some(private_key(own))),
        peers,
        ..Update::default()
    }
}

fn engine(own: u8) -> Engine {
    Engine::new(ShardMap::ONLY, sources(own.into()))
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

/// The whole data plane but for its descriptors.
pub(crate) struct Victim {
    pub(crate) now: Instant,
    shard: Shard<NoIo>,
}

/// Never blocks: what the shard writes early, for want of buffers, is kept in order with the rest.
#[derive(Default)]
struct NoIo {
    datagrams: Vec<Datagram>,
    writes: Vec<Vec<u8>>,
}

pub(crate) struct Datagram {
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

impl Victim {
    pub(crate) fn new(own: u8, peers: Vec<PeerUpdate>) -> Self {
        let capabilities = Capabilities {
            tcp: true,
            udp: true,
        };
        let egress = Egress::new(NoIo::default(), capabilities, true);
        let mut shard = Shard::new(engine(own), egress);
        let now = clock();
        shard.apply(now, &update(own, peers)).expect("few peers");
        Self { now, shard }
    }

    /// Receives a payload, which GRO may have joined from datagrams of `segment_len`.
    pub(crate) fn receive(
        &mut self,
        from: SocketAddr,
        payload: &[u8],
        ecn: Ecn,
        segment_len: Option<usize>,
    ) {
        let received = Received {
            ecn,
            segment_len,
            ..Received::default()
        };
        let arrival = Arrival {
            from,
            received,
            len: payload.len(),
        };
        let mut payload = payload.to_vec();
        self.shard.on_datagrams(self.now, &arrival, &mut payload);
    }

    pub(crate) fn tun_read(&mut self, read: &[u8]) {
        let mut read = read.to_vec();
        self.shard.on_tun_read(self.now, &mut read);
    }

    /// Ends the turn: what was sent, and what was written to the TUN.
    pub(crate) fn end_turn(&mut self) -> (Vec<Datagram>, Vec<Vec<u8>>) {
        self.shard.end_turn(self.now);
        let egress = self.shard.egress_mut();
        while let Some(mut batch) = egress.next_batch() {
            let sent = egress.io_mut().send(&mut batch);
            egress.sent(batch, sent);
        }
        while let Some(buffer) = egress.next_write() {
            let written = egress.io_mut().write(&buffer);
            egress.written(buffer, written);
        }
        let io = std::mem::take(egress.io_mut());
        (io.datagrams, io.writes)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.shard.snapshot()
    }
}

impl PacketIo for NoIo {
    fn send(&mut self, batch: &mut SendBatch) -> io::Result<()> {
        let to = batch.to().remote;
        let datagrams = batch.bytes().chunks(batch.segment_len());
        self.datagrams.extend(datagrams.map(|bytes| Datagram {
            to,
            bytes: bytes.to_vec(),
        }));
        Ok(())
    }

    fn send_singly(&mut self, batch: &mut SendBatch) -> io::Result<()> {
        self.send(batch)
    }

    fn write(&mut self, buffer: &TunBuffer) -> io::Result<()> {
        self.writes.push(buffer.as_bytes().to_vec());
        Ok(())
    }

    fn departure(&mut self, _: Instant) -> Option<(u32, WallNs)> {
        None
    }

    fn backlog(&self, _: SocketAddr) -> usize {
        0
    }
}

/// Drops altogether.
pub(crate) fn drops(snapshot: &Snapshot) -> u64 {
    snapshot.drops.iter().map(|(_, count)| count).sum()
}

/// An engine that says whatever it is told to.
pub(crate) struct Speaker {
    engine: Engine,
    pub(crate) at: SocketAddr,
    heard: Heard,
}

/// What an engine put out.
#[derive(Default)]
struct Heard {
    datagrams: Vec<Vec<u8>>,
    packets: Vec<Vec<u8>>,
}

impl Speaker {
    /// The `own`-th host, with the `victim`-th as the peer for every address.
    pub(crate) fn new(own: u8, victim: u8) -> Self {
        let mut engine = engine(own);
        let mut heard = Heard::default();
        let peers = vec![peer(victim, &["0.0.0.0/0", "::/0"])];
        engine
            .apply(clock(), &update(own, peers), &mut heard)
            .expect("few peers");
        Self {
            engine,
            at: address(own),
            heard,
        }
    }

    /// Seals `content`, whatever it is, or starts the handshake that it takes; the datagrams to send.
    pub(crate) fn say(&mut self, now: Instant, content: &[u8]) -> Vec<Vec<u8>> {
        /// To anywhere: all addresses are the victim's.
        const SIGNPOST: [u8; 20] = [
            0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1,
        ];
        let route = self.engine.route(&SIGNPOST).expect("a route to everywhere");
        self.engine
            .encapsulate(now, route, content, &mut self.heard);
        std::mem::take(&mut self.heard.datagrams)
    }

    /// Takes a datagram of the victim's; what is answered, and the packets in it.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        victim: u8,
        datagram: &[u8],
    ) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let from = Endpoint::configured(address(victim));
        let (mut datagram, outer) = (datagram.to_vec(), Ecn::NotEct.into());
        self.engine
            .handle_datagram(now, &from, outer, &mut datagram, &mut self.heard);
        let Heard { datagrams, packets } = std::mem::take(&mut self.heard);
        (datagrams, packets)
    }
}

impl Sink for Heard {
    fn part(&mut self) {}

    fn datagram(&mut self, len: usize, _: &Endpoint, _: Departure, write: impl FnOnce(&mut [u8])) {
        let mut room = vec![0xee; len];
        write(&mut room);
        self.datagrams.push(room);
    }

    fn packet(&mut self, packet: &[u8]) -> Result<(), Drop> {
        self.packets.push(packet.to_vec());
        Ok(())
    }
}

/// Lets a handshake between the two run to its end; the messages that `speaker` sent.
pub(crate) fn connect(victim: &mut Victim, speaker: &mut Speaker, own: u8) -> Vec<Vec<u8>> {
    let mut said = speaker.say(victim.now, &[]);
    let (at, mut next) = (speaker.at, 0);
    while next < said.len() {
        victim.receive(at, &said[next], Ecn::NotEct, None);
        next += 1;
        let (datagrams, _) = victim.end_turn();
        for datagram in datagrams.iter().filter(|it| it.to == at) {
            said.extend(speaker.hear(victim.now, own, &datagram.bytes).0);
        }
    }
    said
}
