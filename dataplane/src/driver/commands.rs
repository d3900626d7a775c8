//! The loops' work on their shard's inbox.

use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use ployz_engine::UpdateError;
use tokio::sync::mpsc::Sender;

use crate::descriptors::Descriptors;
use crate::inbox::{Change, Command, Inbox, ShardSnapshot};
use crate::shard::Shard;
use crate::sys::ring::RingDepth;

/// The shard that both loops drive.
pub(crate) type DeviceShard = Shard<Descriptors>;

/// True if the TUN's interface was removed under us.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

/// Takes all that waits in the inbox; `Break` after a stop. The flag says that the sockets were exchanged.
pub(super) fn read_inbox(
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
            Some(message) => shard.on_handoff(now, &message),
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
                    shard.egress_mut().io_mut().set_sockets(sockets);
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
                    udp_gso: shard.egress().sends_segmented(),
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
    // Without room, which does not happen while the receiver reads, it goes with the next change.
    if let Some(Ok(permit)) = change.steering.as_ref().map(Sender::try_reserve) {
        permit.send(shard.engine_mut().take_steering());
    }
    Ok(())
}
