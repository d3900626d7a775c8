//! The descriptors of an interface, as the plain way out of a shard.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ployz_engine::{SendMode, WallNs};

use crate::batch::SendBatch;
use crate::egress::PacketIo;
use crate::offload::TunBuffer;
use crate::sys::departures::Departures;
use crate::sys::tun::Tun;
use crate::sys::udp::{Fragmentation, UdpSockets};

/// The longest time that a full socket buffer may hold a shard up: 4 MiB drain in 3 ms at 10 Gb/s, and in 34 ms at 1
/// Gb/s.
const FULL_WAIT_MS: u16 = 50;

/// The TUN and the sockets of one shard.
#[derive(Debug)]
pub(crate) struct Descriptors {
    tun: Arc<Tun>,
    sockets: Arc<UdpSockets>,
    departures: Departures,
}

impl Descriptors {
    /// Puts them together.
    pub(crate) fn new(tun: Arc<Tun>, sockets: Arc<UdpSockets>) -> Self {
        Self {
            tun,
            sockets,
            departures: Departures::new(),
        }
    }

    /// The TUN.
    pub(crate) fn tun(&self) -> &Tun {
        &self.tun
    }

    /// The sockets.
    pub(crate) fn sockets(&self) -> &Arc<UdpSockets> {
        &self.sockets
    }

    /// Uses other sockets from now on.
    pub(crate) fn set_sockets(&mut self, sockets: Arc<UdpSockets>) {
        self.sockets = sockets;
        self.departures = Departures::new();
    }

    /// The socket that a batch leaves through.
    ///
    /// # Errors
    /// `EAFNOSUPPORT` for IPv6 on a host without it.
    pub(crate) fn socket_of(&self, batch: &SendBatch) -> io::Result<BorrowedFd<'_>> {
        socket_of(&self.sockets, batch)
    }

    fn send_under(&self, rule: Fragmentation, batch: &mut SendBatch) -> io::Result<()> {
        let socket = self.socket_of(batch)?;
        let remote = batch.to().remote;
        self.sockets
            .with_fragmentation(remote, rule, || send_each(socket, batch))
    }
}

fn socket_of<'a>(sockets: &'a UdpSockets, batch: &SendBatch) -> io::Result<BorrowedFd<'a>> {
    let socket = sockets.for_remote(batch.to().remote);
    socket.ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// Sends the datagrams of a batch one by one; the error is that of the last that failed.
fn send_each(socket: BorrowedFd<'_>, batch: &mut SendBatch) -> io::Result<()> {
    let mut result = Ok(());
    for index in 0..batch.count() {
        if let Err(error) = patiently(socket, || batch.send_one(socket, index)) {
            result = Err(error);
        }
    }
    result
}

/// Repeats what would block once the descriptor takes more, within bounds.
fn patiently(fd: BorrowedFd<'_>, mut send: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    match send() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
            poll(&mut fds, PollTimeout::from(FULL_WAIT_MS))?;
            send()
        }
        result => result,
    }
}

impl PacketIo for Descriptors {
    fn send(&mut self, batch: &mut SendBatch) -> io::Result<()> {
        let socket = self.socket_of(batch)?;
        match batch.mode() {
            SendMode::Batched => patiently(socket, || batch.send(socket)),
            SendMode::Single => send_each(socket, batch),
            // What does not even fit the first link is lost like any other probe.
            SendMode::Whole => self.send_under(Fragmentation::Never, batch).or(Ok(())),
            SendMode::Fragmented => self.send_under(Fragmentation::Always, batch),
            SendMode::Stamped(token) => {
                let socket = socket_of(&self.sockets, batch)?;
                let ipv6 = batch.to().remote.is_ipv6();
                let send = || batch.send_one(socket, 0);
                self.departures.send(socket, ipv6, token, send)
            }
        }
    }

    fn send_singly(&mut self, batch: &mut SendBatch) -> io::Result<()> {
        send_each(self.socket_of(batch)?, batch)
    }

    fn write(&mut self, buffer: &TunBuffer) -> io::Result<()> {
        let write = || self.tun.write(buffer.as_bytes()).map(|_| ());
        patiently(self.tun.as_fd(), write)
    }

    fn departure(&mut self, now: Instant) -> Option<(u32, WallNs)> {
        self.departures.next(now, &self.sockets)
    }

    fn backlog(&self, remote: SocketAddr) -> usize {
        self.sockets.backlog(remote)
    }
}
