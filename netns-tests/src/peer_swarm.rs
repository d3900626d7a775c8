//! Many peers of one daemon: engines of ours in one thread, each with its own key and socket.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ployz_engine::{
    AllowedIpChange, Departure, Drop as Dropped, Endpoint, Engine, OuterHeader, PeerUpdate,
    PrivateKey, PublicKey, Reading, ShardMap, Sink, Sources, Update,
};

use crate::Netns;
use crate::relay::udp_socket;
use crate::wait::now;

/// How often each sends a packet, so that its session is in use.
const USE_INTERVAL: Duration = Duration::from_secs(20);
const TURN_MS: u8 = 20;
const DATAGRAM_LEN_MAX: usize = 2_048;

/// Whose peers they are.
#[derive(Debug, Clone, Copy)]
pub struct Hub {
    pub public_key: PublicKey,
    pub endpoint: SocketAddr,
    pub inner: Ipv4Addr,
}

/// Peers at work until this is dropped.
#[derive(Debug)]
pub struct PeerSwarm {
    /// What the hub has to know: keys and allowed IPs.
    pub peers: Vec<(PublicKey, Ipv4Addr)>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PeerSwarm {
    /// So many of them in `netns`. Those that have clocks answer tests, and test themselves.
    pub fn start(netns: &Netns, hub: Hub, count: u8, have_clocks: bool) -> Result<Self> {
        let engines = (0..count)
            .map(|number| SwarmPeer::new(netns, hub, number, have_clocks))
            .collect::<Result<Vec<_>>>()?;
        let peers = engines
            .iter()
            .map(|it| Some((it.engine.public_key()?, it.inner)))
            .collect::<Option<Vec<_>>>()
            .context("all have keys")?;
        let ended: Arc<AtomicBool> = Arc::default();
        let ends = Arc::clone(&ended);
        let thread = thread::spawn(move || run(engines, hub, &ends));
        Ok(Self {
            peers,
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for PeerSwarm {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

struct SwarmPeer {
    engine: Engine,
    socket: UdpSocket,
    inner: Ipv4Addr,
    used: Instant,
}

impl SwarmPeer {
    fn new(netns: &Netns, hub: Hub, number: u8, have_clocks: bool) -> Result<Self> {
        let socket = udp_socket(netns, (Ipv4Addr::UNSPECIFIED, 0).into())?;
        socket.set_nonblocking(true)?;
        let mut engine = Engine::new(ShardMap::ONLY, sources());
        if have_clocks {
            engine.set_clocks(Box::new(clocks));
        }
        let mut key = [7; 32];
        key[1] = number;
        let peer = PeerUpdate {
            endpoint: Some(hub.endpoint),
            allowed_ips: vec![AllowedIpChange::Add(
                std::net::IpAddr::from(hub.inner).into(),
            )],
            ..PeerUpdate::new(hub.public_key)
        };
        let update = Update {
            private_key: Some(Some(PrivateKey::from_bytes(key))),
            peers: vec![peer],
            ..Update::default()
        };
        engine.apply(now(), &update, &mut Out(&socket))?;
        Ok(Self {
            engine,
            socket,
            inner: Ipv4Addr::new(10, 77, 0, number),
            // They begin one after the other, and go on so.
            used: now() - USE_INTERVAL + Duration::from_millis(20) * number.into(),
        })
    }

    fn turn(&mut self, now: Instant, hub: Hub, buffer: &mut [u8]) {
        while let Ok((len, from)) = self.socket.recv_from(buffer) {
            let outer = OuterHeader::default();
            let from = Endpoint::configured(from);
            self.engine.handle_datagram(
                now,
                &from,
                outer,
                &mut buffer[..len],
                &mut Out(&self.socket),
            );
        }
        self.engine.handle_timeout(now, &mut Out(&self.socket));
        if now.saturating_duration_since(self.used) >= USE_INTERVAL {
            self.used = now;
            self.send(now, hub.inner);
        }
    }

    /// The shortest packet that the hub believes to be ours.
    fn send(&mut self, now: Instant, to: Ipv4Addr) {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[3] = 20;
        packet[8] = 64;
        packet[12..16].copy_from_slice(&self.inner.octets());
        packet[16..].copy_from_slice(&to.octets());
        if let Some(route) = self.engine.route(&packet) {
            self.engine
                .encapsulate(now, route, &packet, &mut Out(&self.socket));
        }
    }
}

fn run(mut engines: Vec<SwarmPeer>, hub: Hub, ended: &AtomicBool) {
    let mut buffer = [0; DATAGRAM_LEN_MAX];
    while !ended.load(Ordering::Relaxed) {
        for engine in &mut engines {
            engine.turn(now(), hub, &mut buffer);
        }
        let mut fds: Vec<PollFd<'_>> = engines
            .iter()
            .map(|it| PollFd::new(it.socket.as_fd(), PollFlags::POLLIN))
            .collect();
        let _interrupted = poll(&mut fds, PollTimeout::from(TURN_MS));
    }
}

/// What goes out goes out; what comes in has no TUN to go to.
struct Out<'a>(&'a UdpSocket);

impl Sink for Out<'_> {
    fn datagram(&mut self, len: usize, to: &Endpoint, _: Departure, write: impl FnOnce(&mut [u8])) {
        let mut room = vec![0; len];
        write(&mut room);
        let _lost = self.0.send_to(&room, to.remote);
    }

    fn part(&mut self) {}

    fn packet(&mut self, _: &[u8]) -> Result<(), Dropped> {
        Ok(())
    }
}

/// Good enough for keys that nobody attacks.
fn random(bytes: &mut [u8]) {
    use std::hash::{BuildHasher as _, RandomState};
    for chunk in bytes.chunks_mut(8) {
        let word = RandomState::new().hash_one(0).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

fn sources() -> Sources {
    Sources {
        random: Box::new(random),
        unix_time: Box::new(|| Duration::from_nanos(clocks().wall_ns)),
    }
}

fn clocks() -> Reading {
    #[expect(clippy::disallowed_methods, reason = "the peers have clocks")]
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let wall_ns = wall.unwrap_or_default().as_nanos() as u64;
    Reading {
        // Nobody sets it within a test.
        monotonic_ns: wall_ns,
        wall_ns,
    }
}
