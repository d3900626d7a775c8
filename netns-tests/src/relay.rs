//! A man in the middle: passes datagrams on between two endpoints, and sees, drops, changes or keeps them.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::cmsg_space;
use nix::sys::socket::sockopt::UdpGroSegment;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};

use crate::pair::Family;
use crate::{Netns, Pair, Plan, Stage};

/// How long the thread takes at most to notice that it should end.
const TURN: Duration = Duration::from_millis(20);

/// Type byte of a message, the first of a datagram.
pub const INITIATION: u8 = 1;
pub const RESPONSE: u8 = 2;
pub const DATA: u8 = 4;

/// Decides whether a datagram goes on, and what has become of it. The number is its position in the batch that it came
/// in: zero for what came by itself.
pub type Filter = dyn Fn(&mut [u8], usize) -> bool + Send + Sync;

/// Stands between a client, the last one who wrote to it, and `server`.
#[derive(Debug)]
pub struct Relay {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Every datagram that came by, dropped ones included.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub from_client: Vec<Vec<u8>>,
    pub from_server: Vec<Vec<u8>>,
}

impl Seen {
    /// How many of `datagrams` are messages of type `kind`.
    #[must_use]
    pub fn count(datagrams: &[Vec<u8>], kind: u8) -> usize {
        datagrams
            .iter()
            .filter(|it| it.first() == Some(&kind))
            .count()
    }
}

impl Relay {
    /// Listens inside `netns` on a free port of `address`.
    pub fn start(
        netns: &Netns,
        address: IpAddr,
        server: SocketAddr,
        filter: Box<Filter>,
    ) -> Result<Self> {
        let socket = udp_socket(netns, SocketAddr::new(address, 0))?;
        socket.set_read_timeout(Some(TURN))?;
        setsockopt(&socket, UdpGroSegment, &true)?;
        let address = socket.local_addr()?;
        let (seen, ended) = (Arc::default(), Arc::default());
        let (sees, ends) = (Arc::clone(&seen), Arc::clone(&ended));
        let thread = thread::spawn(move || pass_on(&socket, server, &filter, &sees, &ends));
        Ok(Self {
            address,
            seen,
            ended,
            thread: Some(thread),
        })
    }

    /// A pair that has it in the middle, on b's host: a knows b through the relay, b learns a's endpoint from what
    /// comes out of it.
    pub fn between_strangers(stage: &Stage, filter: Box<Filter>) -> Result<(Pair, Self)> {
        let pair = Pair::strangers(stage, Plan::of(stage))?;
        let Pair { a, b } = &pair;
        let address = b.outer(Family::V4);
        let relay = Self::start(&b.netns, address, b.endpoint(Family::V4), filter)?;
        b.know(a, "")?;
        a.know(b, &format!("endpoint {}", relay.address))?;
        Ok((pair, relay))
    }

    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A socket that lives inside `netns`, whoever uses it.
pub fn udp_socket(netns: &Netns, address: SocketAddr) -> Result<UdpSocket> {
    netns.enter(|| UdpSocket::bind(address).with_context(|| format!("bind to {address}")))
}

fn pass_on(
    socket: &UdpSocket,
    server: SocketAddr,
    filter: &Filter,
    seen: &Mutex<Seen>,
    ended: &AtomicBool,
) {
    let mut client = None;
    let mut buffer = vec![0; 65536];
    while !ended.load(Ordering::Relaxed) {
        let Some((length, segment_len, source)) = receive(socket, &mut buffer) else {
            continue;
        };
        for (position, datagram) in buffer[..length].chunks_mut(segment_len).enumerate() {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let target = if source == server {
                seen.from_server.push(datagram.to_vec());
                client
            } else {
                seen.from_client.push(datagram.to_vec());
                client = Some(source);
                Some(server)
            };
            drop(seen);
            if let Some(target) = target
                && filter(datagram, position)
            {
                // As on any path, what cannot be passed on is lost.
                let _lost = socket.send_to(datagram, target);
            }
        }
    }
}

/// One datagram, or a batch of them as it was sent: its length, that of its datagrams, and its sender.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, usize, SocketAddr)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = cmsg_space!(i32);
    let flags = MsgFlags::empty();
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)
            .ok()?;
    let length = message.bytes;
    let segment_len = message.cmsgs().ok()?.find_map(|control| {
        if let ControlMessageOwned::UdpGroSegments(len) = control {
            usize::try_from(len).ok()
        } else {
            None
        }
    });
    let address = message.address?;
    let v4 = address
        .as_sockaddr_in()
        .map(|it| SocketAddr::V4((*it).into()));
    let v6 = address
        .as_sockaddr_in6()
        .map(|it| SocketAddr::V6((*it).into()));
    // A datagram without bytes is a batch of one, too.
    Some((length, segment_len.unwrap_or(length).max(1), v4.or(v6)?))
}
