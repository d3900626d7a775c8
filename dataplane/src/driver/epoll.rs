//! The epoll loop: plain calls, one buffer, every read run to completion.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::clocks::clock;
use super::commands::{DeviceShard, is_gone, read_inbox};
use crate::inbox::Inbox;
use crate::neighbours::Neighbours;
use crate::sys::message::Incoming;
use crate::sys::udp::UdpSockets;

/// Reads of one descriptor before the others have their turn.
const READS_PER_TURN: usize = 8;
/// A vnet header, the longest packet, its padding; or the longest datagram.
const BUFFER_LEN: usize = 10 + 65_535 + 16;

const WAKE: u64 = 0;
const TUN: u64 = 1;
const UDP_V4: u64 = 2;
const UDP_V6: u64 = 3;

struct Loop<'a> {
    epoll: Epoll,
    shard: DeviceShard,
    inbox: &'a mut Inbox,
    neighbours: &'a Neighbours,
    incoming: Box<Incoming>,
    buffer: Box<[u8]>,
}

/// Runs until told to stop.
///
/// # Errors
/// If epoll breaks.
pub(crate) fn run(
    shard: DeviceShard,
    inbox: &mut Inbox,
    neighbours: &Neighbours,
) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&*inbox, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
    epoll.add(
        shard.egress().io().tun(),
        EpollEvent::new(EpollFlags::EPOLLIN, TUN),
    )?;
    let buffer = vec![0; BUFFER_LEN].into_boxed_slice();
    let mut this = Loop {
        epoll,
        shard,
        inbox,
        neighbours,
        incoming: Incoming::new(),
        buffer,
    };
    this.watch_sockets()?;
    this.run()
}

impl Loop<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 4];
        let mut now = clock();
        loop {
            self.shard.end_turn(now);
            self.neighbours.deliver(self.shard.engine_mut());
            self.shard.egress_mut().drain();
            let ready = match self.epoll.wait(&mut events, self.timeout(now)) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(errno) => return Err(errno.into()),
            };
            now = clock();
            self.shard.begin_turn(now);
            for event in &events[..ready] {
                match event.data() {
                    TUN => self.read_tun(now)?,
                    UDP_V4 => self.receive(now, false),
                    UDP_V6 => self.receive(now, true),
                    _ => {
                        let before = Arc::clone(self.shard.egress().io().sockets());
                        match read_inbox(now, &mut self.shard, self.inbox, None) {
                            std::ops::ControlFlow::Break(()) => return Ok(()),
                            std::ops::ControlFlow::Continue(true) => {
                                self.forget_sockets(&before)?;
                                self.watch_sockets()?;
                            }
                            std::ops::ControlFlow::Continue(false) => {}
                        }
                    }
                }
            }
        }
    }

    /// Rounded up, so that a timer is due when we wake for it.
    fn timeout(&self, now: Instant) -> EpollTimeout {
        let patience = self.shard.patience(now);
        patience.map_or(EpollTimeout::NONE, |patience| {
            let ms = patience.as_micros().div_ceil(1000);
            EpollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
        })
    }

    fn watch_sockets(&self) -> io::Result<()> {
        let sockets = self.shard.egress().io().sockets();
        self.epoll
            .add(sockets.v4(), EpollEvent::new(EpollFlags::EPOLLIN, UDP_V4))?;
        if let Some(v6) = sockets.v6() {
            self.epoll
                .add(v6, EpollEvent::new(EpollFlags::EPOLLIN, UDP_V6))?;
        }
        Ok(())
    }

    fn forget_sockets(&self, sockets: &UdpSockets) -> io::Result<()> {
        self.epoll.delete(sockets.v4())?;
        sockets
            .v6()
            .map_or(Ok(()), |v6| self.epoll.delete(v6).map_err(io::Error::from))
    }

    fn read_tun(&mut self, now: Instant) -> io::Result<()> {
        for _ in 0..READS_PER_TURN {
            match self.shard.egress().io().tun().read(&mut self.buffer) {
                Ok(len) => self.shard.on_tun_read(now, &mut self.buffer[..len]),
                Err(error) if is_gone(&error) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn receive(&mut self, now: Instant, ipv6: bool) {
        let sockets = Arc::clone(self.shard.egress().io().sockets());
        let Some(socket) = (if ipv6 {
            sockets.v6()
        } else {
            Some(sockets.v4())
        }) else {
            return;
        };
        for _ in 0..READS_PER_TURN {
            match self.incoming.receive(socket.as_fd(), &mut self.buffer) {
                Ok(Some(arrival)) => {
                    self.shard
                        .on_datagrams(now, &arrival, &mut self.buffer[..arrival.len]);
                }
                // Cut off, or from nowhere: the next one may be better.
                Ok(None) => {}
                Err(_) => break,
            }
        }
    }
}
