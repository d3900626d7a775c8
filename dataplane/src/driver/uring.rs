//! The io_uring loop: one submission per turn, which sends, writes, and waits.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ployz_engine::SendMode;

use super::clocks::clock;
use super::commands::{DeviceShard, is_gone, read_inbox};
use crate::egress::PacketIo;
use crate::inbox::Inbox;
use crate::neighbours::Neighbours;
use crate::sys::ring::{Completion, Ring, Source};

/// Buffers of 64 KiB, of which the kernel gets eight while reads are long and more while they are short: as many short
/// packets as fill a batch.
const TUN_BUFFERS: u16 = 64;
/// Datagrams that were sent in batches come in batches; these are for those that come one by one.
const UDP_BUFFERS: u16 = 32;
/// The time that the kernel may take to let go of memory at the end.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(1);

/// A ring of the size that the loop wants.
///
/// # Errors
/// As [`Ring::new`].
pub(crate) fn ring() -> io::Result<Ring> {
    Ring::new(UDP_BUFFERS, TUN_BUFFERS)
}

/// Runs until told to stop.
///
/// # Errors
/// If the ring breaks.
pub(crate) fn run(
    mut shard: DeviceShard,
    mut ring: Ring,
    inbox: &mut Inbox,
    neighbours: &Neighbours,
) -> io::Result<()> {
    ring.set_source(Source::Wake, Some(inbox.as_fd()));
    ring.set_source(Source::Tun, Some(shard.egress().io().tun().as_fd()));
    set_sockets(&shard, &mut ring);
    let mut now = clock();
    loop {
        shard.end_turn(now);
        neighbours.deliver(shard.engine_mut());
        give_output(&mut shard, &mut ring);
        ring.wait(shard.patience(now))?;
        now = clock();
        shard.begin_turn(now);
        if let ControlFlow::Break(end) = take_input(now, &mut shard, &mut ring, inbox) {
            ring.shut_down(SHUTDOWN_WAIT);
            return end;
        }
    }
}

fn set_sockets(shard: &DeviceShard, ring: &mut Ring) {
    let sockets = shard.egress().io().sockets();
    ring.set_source(Source::UdpV4, Some(sockets.v4()));
    ring.set_source(Source::UdpV6, sockets.v6());
}

fn take_input(
    now: Instant,
    shard: &mut DeviceShard,
    ring: &mut Ring,
    inbox: &mut Inbox,
) -> ControlFlow<io::Result<()>> {
    while let Some(completion) = ring.next() {
        match completion {
            Completion::Datagrams(id, arrival, at) => {
                let payload = &mut ring.buffer(&id)[at..at + arrival.len];
                shard.on_datagrams(now, &arrival, payload);
                ring.recycle(id);
            }
            Completion::TunRead(id, len) => {
                shard.on_tun_read(now, &mut ring.buffer(&id)[..len]);
                ring.recycle(id);
            }
            Completion::Sent(batch, result) => shard.egress_mut().sent(batch, result),
            Completion::Written(buffer, result) => shard.egress_mut().written(buffer, result),
            Completion::Wake => match read_inbox(now, shard, inbox, Some(ring.depth())) {
                ControlFlow::Break(()) => return ControlFlow::Break(Ok(())),
                ControlFlow::Continue(true) => set_sockets(shard, ring),
                ControlFlow::Continue(false) => {}
            },
            Completion::Failed(Source::Tun, error) if is_gone(&error) => {
                return ControlFlow::Break(Err(error));
            }
            Completion::Failed(source, error) => {
                tracing::debug!(?source, %error, "receive failed");
            }
        }
    }
    ControlFlow::Continue(())
}

/// Queues everything that is ready; the next wait submits it.
fn give_output(shard: &mut DeviceShard, ring: &mut Ring) {
    while let Some(mut batch) = shard.egress_mut().next_batch() {
        if batch.mode() != SendMode::Batched {
            let result = shard.egress_mut().io_mut().send(&mut batch);
            shard.egress_mut().sent(batch, result);
            continue;
        }
        match shard.egress().io().socket_of(&batch) {
            Ok(socket) => ring.send(socket, batch),
            Err(error) => shard.egress_mut().sent(batch, Err(error)),
        }
    }
    while let Some(buffer) = shard.egress_mut().next_write() {
        ring.write(shard.egress().io().tun().as_fd(), buffer);
    }
}
