//! Datagrams that nobody asked for, in numbers.

use std::collections::HashMap;
use std::io::{ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn,
    SockaddrStorage, sendmsg, socket,
};

use crate::Netns;
use crate::forged_handshake::{
    INITIATION_BYTES, Noise, mac1, mac1_key, noise_initiation, open_cookie, renew, seal_mac2,
};
use crate::netns::host;
use crate::wait::{now, pause};

/// How often the pace is corrected.
const TURN: Duration = Duration::from_millis(1);

/// The kernel's bound on segments in one send.
const SEGMENTS: usize = 64;

/// What fits on an Ethernet cable.
const DATAGRAM_BYTES: usize = 1472;

/// Sends until it has sent enough or is dropped.
#[derive(Debug)]
pub struct Attack {
    sent: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// How much, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub datagrams: u64,
    pub a_second: u64,
}

impl Attack {
    /// Random, truncated and oversized datagrams, half of them in batches that arrive as one.
    pub fn with_rubbish(netns: &Netns, target: SocketAddr, seed: u64, pace: Pace) -> Result<Self> {
        let socket = crate::relay::udp_socket(netns, unspecified(target))?;
        let mut rubbish = Rubbish {
            socket,
            target: target.into(),
            noise: Noise::seeded(seed),
        };
        Ok(Self::start(pace, move || rubbish.send()))
    }

    /// Handshake initiations with a valid first MAC for `victim`, from a new address every time.
    pub fn with_initiations(
        netns: &Netns,
        victim: &[u8; 32],
        target: SocketAddrV4,
        pace: Pace,
    ) -> Result<Self> {
        Self::with_initiations_from(netns, victim, None, target, pace)
    }

    /// The same from `source` every time, whose that may be.
    pub fn with_initiations_from(
        netns: &Netns,
        victim: &[u8; 32],
        source: Option<SocketAddrV4>,
        target: SocketAddrV4,
        pace: Pace,
    ) -> Result<Self> {
        let raw = || {
            let flags = SockFlag::SOCK_CLOEXEC;
            Ok(socket(
                AddressFamily::Inet,
                SockType::Raw,
                flags,
                SockProtocol::Raw,
            )?)
        };
        let mut noise = Noise::seeded(7);
        let mut flood = Flood {
            socket: netns.enter(raw).context("raw socket")?,
            source,
            target,
            message: noise_initiation(victim, &mut noise),
            mac1_key: mac1_key(victim),
            noise,
        };
        let mut hurried = false;
        Ok(Self::start(pace, move || {
            if !hurried {
                hurry()?;
                hurried = true;
            }
            flood.send()
        }))
    }

    /// Initiations from an address of `netns` itself, with a cookie from the moment that one is sent to it.
    pub fn with_a_cookie(
        netns: &Netns,
        victim: &[u8; 32],
        target: SocketAddr,
        pace: Pace,
    ) -> Result<(Self, Arc<AtomicBool>)> {
        let socket = crate::relay::udp_socket(netns, unspecified(target))?;
        socket.set_nonblocking(true)?;
        let has_cookie = Arc::<AtomicBool>::default();
        let mut caller = Caller {
            socket,
            target,
            victim: *victim,
            noise: Noise::seeded(8),
            sent: HashMap::new(),
            cookie: None,
            has_cookie: Arc::clone(&has_cookie),
        };
        Ok((Self::start(pace, move || caller.send()), has_cookie))
    }

    fn start(pace: Pace, mut send: impl FnMut() -> Result<u64> + Send + 'static) -> Self {
        let (sent, ended) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (sends, ends) = (Arc::clone(&sent), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            let start = now();
            let mut total = 0;
            while total < pace.datagrams && !ends.load(Ordering::Relaxed) {
                let elapsed = u64::try_from((now() - start).as_micros())?;
                let due = (elapsed * pace.a_second / 1_000_000).min(pace.datagrams);
                while total < due {
                    total += send()?;
                    sends.store(total, Ordering::Relaxed);
                }
                pause(TURN);
            }
            Ok(())
        });
        Self {
            sent,
            ended,
            thread: Some(thread),
        }
    }

    /// How many datagrams have gone out so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until all have been sent.
    pub fn finish(mut self) -> Result<u64> {
        let thread = self.thread.take().context("finished twice")?;
        thread.join().ok().context("the attack panicked")??;
        Ok(self.sent())
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Puts the calling thread before the programs that it competes with, so that it keeps its pace.
fn hurry() -> Result<()> {
    host(&format!("renice -n -15 -p {}", nix::unistd::gettid())).map(drop)
}

fn unspecified(target: SocketAddr) -> SocketAddr {
    match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

struct Rubbish {
    socket: UdpSocket,
    target: SockaddrStorage,
    noise: Noise,
}

impl Rubbish {
    /// Sends one datagram, or as many as one send can, and yields how many.
    fn send(&mut self) -> Result<u64> {
        if self.noise.word() & 63 == 0 {
            self.send_batch()
        } else {
            self.send_single()
        }
    }

    fn send_single(&mut self) -> Result<u64> {
        let mut datagram = [0; DATAGRAM_BYTES];
        let length = self.length();
        self.noise.fill(&mut datagram[..length]);
        self.pretend(&mut datagram[..length]);
        self.transmit(&datagram[..length], None)?;
        Ok(1)
    }

    fn send_batch(&mut self) -> Result<u64> {
        let size = 1 + self.noise.below(DATAGRAM_BYTES / 2);
        let mut batch = vec![0; size * SEGMENTS];
        self.noise.fill(&mut batch);
        for datagram in batch.chunks_mut(size) {
            self.pretend(datagram);
        }
        // The last segment of a batch may be shorter than the others.
        let length = batch.len() - self.noise.below(size);
        self.transmit(&batch[..length], Some(u16::try_from(size)?))?;
        Ok(SEGMENTS as u64)
    }

    /// Any length, but more often one that a message has or just does not have.
    fn length(&mut self) -> usize {
        const INTERESTING: [usize; 12] = [0, 1, 4, 15, 16, 31, 32, 64, 91, 92, 147, 148];
        match self.noise.below(2) {
            0 => INTERESTING[self.noise.below(INTERESTING.len())],
            _ => self.noise.below(DATAGRAM_BYTES),
        }
    }

    /// Three of four start as a message of ours would.
    fn pretend(&mut self, datagram: &mut [u8]) {
        let kind = u8::try_from(self.noise.below(5)).unwrap_or(0);
        if self.noise.below(4) != 0 {
            for (byte, pretended) in datagram.iter_mut().zip([kind, 0, 0, 0]) {
                *byte = pretended;
            }
        }
    }

    fn transmit(&self, bytes: &[u8], segment: Option<u16>) -> Result<()> {
        let segments = segment.as_ref().map(ControlMessage::UdpGsoSegments);
        let (control, flags) = (segments.as_slice(), MsgFlags::empty());
        let fd = self.socket.as_raw_fd();
        sendmsg(
            fd,
            &[IoSlice::new(bytes)],
            control,
            flags,
            Some(&self.target),
        )?;
        Ok(())
    }
}

/// An attacker who can be reached at the address that it sends from.
struct Caller {
    socket: UdpSocket,
    target: SocketAddr,
    victim: [u8; 32],
    noise: Noise,
    /// Messages without a cookie by their sender index.
    sent: HashMap<[u8; 4], [u8; INITIATION_BYTES]>,
    cookie: Option<[u8; 16]>,
    has_cookie: Arc<AtomicBool>,
}

impl Caller {
    fn send(&mut self) -> Result<u64> {
        let mut message = noise_initiation(&self.victim, &mut self.noise);
        match &self.cookie {
            Some(cookie) => seal_mac2(&mut message, cookie),
            None => {
                let index = message[4..8].try_into()?;
                self.sent.insert(index, message);
                self.look_for_a_cookie();
            }
        }
        match self.socket.send_to(&message, self.target) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error.into()),
            Ok(_) | Err(_) => Ok(1),
        }
    }

    fn look_for_a_cookie(&mut self) {
        let mut reply = [0; DATAGRAM_BYTES];
        let Ok(64) = self.socket.recv(&mut reply) else {
            return;
        };
        let message = self.sent.get(&reply[4..8]);
        self.cookie = message.and_then(|it| open_cookie(&self.victim, mac1(it), &reply[..64]));
        self.has_cookie
            .store(self.cookie.is_some(), Ordering::Relaxed);
    }
}

struct Flood {
    socket: OwnedFd,
    /// Another one every time if there is none.
    source: Option<SocketAddrV4>,
    target: SocketAddrV4,
    message: [u8; INITIATION_BYTES],
    mac1_key: [u8; 32],
    noise: Noise,
}

impl Flood {
    const HEADERS: usize = 20 + 8;

    fn send(&mut self) -> Result<u64> {
        let mut packet = [0; Self::HEADERS + INITIATION_BYTES];
        let random = self.noise.word();
        let length = u16::try_from(packet.len())?;
        let [r0, r1, r2, r3, r4, ..] = random.to_le_bytes();
        let another = || {
            let port = u16::from_be_bytes([0x80 | r3, r4]);
            SocketAddrV4::new(Ipv4Addr::new(100, 64 | (r0 & 63), r1, r2), port)
        };
        let source = self.source.unwrap_or_else(another);
        // Checksum and identification are the kernel's to fill in, as IP_HDRINCL has it.
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[8] = 64;
        packet[9] = 17;
        packet[12..16].copy_from_slice(&source.ip().octets());
        packet[16..20].copy_from_slice(&self.target.ip().octets());
        packet[20..22].copy_from_slice(&source.port().to_be_bytes());
        packet[22..24].copy_from_slice(&self.target.port().to_be_bytes());
        packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
        // Each another: one that was taken before is refused at once.
        renew(&mut self.message, &self.mac1_key, &mut self.noise);
        packet[Self::HEADERS..].copy_from_slice(&self.message);
        let target = SockaddrIn::from(SocketAddrV4::new(*self.target.ip(), 0));
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        sendmsg(fd, &[IoSlice::new(&packet)], &[], flags, Some(&target))?;
        Ok(1)
    }
}
