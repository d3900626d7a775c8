//! The two loops that move bytes between the kernel and a shard. They behave the same; `uring` is the fast one, `epoll`
//! is for where io_uring is forbidden or too old.

pub(crate) mod epoll;
pub(crate) mod uring;

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use ployz_engine::{Reading, Sources, UpdateError};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use tokio::sync::mpsc::Sender;

use crate::descriptors::Descriptors;
use crate::inbox::{Change, Command, Inbox, ShardSnapshot};
use crate::shard::Shard;
use crate::sys::ring::RingDepth;

/// The shard that both drive.
pub(crate) type DeviceShard = Shard<Descriptors>;

/// The one place where the data plane reads a clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the drivers are where time comes from"
)]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

/// Both clocks at nearly one moment: of a few tries, the one in which the least time passed between them.
pub(crate) fn read_clocks() -> Reading {
    const TRIES: u32 = 3;
    let read = || {
        let before_ns = clock_ns(ClockId::CLOCK_BOOTTIME);
        let wall_ns = clock_ns(ClockId::CLOCK_REALTIME);
        let after_ns = clock_ns(ClockId::CLOCK_BOOTTIME);
        let between_ns = after_ns - before_ns;
        let reading = Reading {
            monotonic_ns: before_ns + between_ns / 2,
            wall_ns,
        };
        (between_ns, reading)
    };
    let best = (1..TRIES).fold(read(), |best, _| {
        // A vDSO call takes some tens of nanoseconds.
        if best.0 < 1_000 {
            best
        } else {
            std::cmp::min_by_key(best, read(), |it| it.0)
        }
    });
    best.1
}

/// The kernel's randomness, of which nothing stays in our memory, and the wall clock.
pub(crate) fn sources() -> Sources {
    let random = |bytes: &mut [u8]| OsRng.try_fill_bytes(bytes).expect("getrandom(2) works");
    let unix_time = || Duration::from_nanos(clock_ns(ClockId::CLOCK_REALTIME));
    Sources {
        random: Box::new(random),
        unix_time: Box::new(unix_time),
    }
}

/// Zero if there is no such clock, which Linux does not know.
fn clock_ns(id: ClockId) -> u64 {
    let time = clock_gettime(id).map_or(Duration::ZERO, Duration::from);
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// True if the TUN's interface was removed under us.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

/// Takes all that waits in the inbox; `Break` after a stop. The flag says that the sockets were exchanged.
fn read_inbox(
    now: Instant,
    shard: &mut DeviceShard,
    inbox: &mut Inbox,
    ring: Option<RingDepth>,
) -> ControlFlow<(), bool> {
    inbox.silence();
    let mut new_sockets = false;
    loop {
        // Taken out before the commands: what the sender was told before it wrote this, we are told before we read it.
        let message = inbox.next_message();
        new_sockets |= obey(now, shard, inbox, ring)?;
        match message {
            Some(message) => shard.on_hand_over(now, &message),
            None => return ControlFlow::Continue(new_sockets),
        }
    }
}

/// Carries out the commands that wait.
fn obey(
    now: Instant,
    shard: &mut DeviceShard,
    inbox: &mut Inbox,
    ring: Option<RingDepth>,
) -> ControlFlow<(), bool> {
    let mut new_sockets = false;
    // A caller that has gone away does not want the answer.
    while let Some(command) = inbox.next() {
        match command {
            Command::Apply(change, reply) => {
                let result = apply(now, shard, &change);
                if let (Ok(()), Some(sockets)) = (&result, change.sockets) {
                    shard.engine_mut().set_listen_port(sockets.port());
                    shard.outlet_mut().exit_mut().set_sockets(sockets);
                    new_sockets = true;
                }
                let _ = reply.send(result);
            }
            Command::Describe(reply) => {
                let _ = reply.send(shard.describe());
            }
            Command::Snapshot(reply) => {
                let _ = reply.send(ShardSnapshot {
                    traffic: shard.snapshot(),
                    udp_gso: shard.outlet().sends_segmented(),
                    ring,
                });
            }
            Command::Measure { count, wanted } => {
                shard
                    .engine_mut()
                    .measure_round_trips(now, count, wanted.as_deref())
            }
            Command::SetMtu { link, smallest } => shard.engine_mut().set_mtu(link, smallest),
            Command::ForgetLocals => shard.engine_mut().forget_locals(|_| true),
            Command::Stop => return ControlFlow::Break(()),
        }
    }
    ControlFlow::Continue(new_sockets)
}

fn apply(now: Instant, shard: &mut DeviceShard, change: &Change) -> Result<(), UpdateError> {
    shard.apply(now, &change.update)?;
    // Without room, which does not happen while somebody reads, it goes with the next change.
    if let Some(Ok(permit)) = change.steering.as_ref().map(Sender::try_reserve) {
        permit.send(shard.engine_mut().take_steering());
    }
    Ok(())
}
