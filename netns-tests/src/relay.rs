//! A man in the middle: passes datagrams on between two endpoints, and sees, drops or keeps them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Netns;

/// How long the thread takes at most to notice that it should end.
const TURN: Duration = Duration::from_millis(20);

/// Type byte of a message, the first of a datagram.
pub const INITIATION: u8 = 1;
pub const RESPONSE: u8 = 2;
pub const DATA: u8 = 4;

/// Decides whether a datagram goes on.
pub type Filter = dyn Fn(&[u8]) -> bool + Send + Sync;

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
        let Ok((length, source)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let datagram = &buffer[..length];
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
            && filter(datagram)
        {
            // As on any path, what cannot be passed on is lost.
            let _lost = socket.send_to(datagram, target);
        }
    }
}
