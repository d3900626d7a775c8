//! The two loops that move bytes between the kernel and a shard. They behave the same; `uring` is the fast one, `epoll`
//! is for where io_uring is forbidden or too old.

pub(crate) mod epoll;
pub(crate) mod uring;

use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use crate::descriptors::Descriptors;
use crate::inbox::{Command, Inbox};
use crate::shard::Shard;

/// The shard that both drive.
pub(crate) type DeviceShard = Shard<Descriptors>;

/// The one place where the data plane reads a clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the drivers are where time comes from"
)]
fn clock() -> Instant {
    Instant::now()
}

/// True if the TUN's interface was removed under us.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

/// Carries out the commands that wait; `Break` after a stop. The flag says that the sockets were exchanged.
fn obey(now: Instant, shard: &mut DeviceShard, inbox: &Inbox) -> ControlFlow<(), bool> {
    inbox.silence();
    let mut new_sockets = false;
    // A caller that has gone away does not want the answer.
    while let Some(command) = inbox.next() {
        match command {
            Command::Apply(update, sockets, reply) => {
                let result = shard.apply(now, update);
                if let (Ok(()), Some(sockets)) = (&result, sockets) {
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
                let _ = reply.send((shard.snapshot(), shard.outlet().sends_segmented()));
            }
            Command::SetMtu { link, smallest } => shard.engine_mut().set_mtu(link, smallest),
            Command::ForgetLocals => shard.engine_mut().forget_locals(),
            Command::Stop => return ControlFlow::Break(()),
        }
    }
    ControlFlow::Continue(new_sockets)
}
