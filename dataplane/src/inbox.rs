//! How other threads speak to a shard: a short queue of commands, and a descriptor that wakes it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use nix::sys::eventfd::{EfdFlags, EventFd};
use ployz_engine::{Description, Snapshot, Update, UpdateError};
use tokio::sync::oneshot;

use crate::sys::udp::UdpSockets;

/// Commands are rare and answered within a turn; more than this many waiting means that the shard is stuck.
const COMMANDS_MAX: usize = 16;

/// What a shard can be told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Apply an update, and use these sockets from then on.
    Apply(
        Update,
        Option<Arc<UdpSockets>>,
        oneshot::Sender<Result<(), UpdateError>>,
    ),
    /// Say everything.
    Describe(oneshot::Sender<Description>),
    /// Say what changes with traffic, and whether UDP GSO is in use.
    Snapshot(oneshot::Sender<(Snapshot, bool)>),
    /// The interface's MTU, and the smallest of it and of those of the routes through it, in bytes.
    SetMtu { link: usize, smallest: usize },
    /// The host's addresses or routes have changed.
    ForgetLocals,
    /// End.
    Stop,
}

/// The sending end.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    commands: SyncSender<Command>,
    event: Arc<EventFd>,
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Inbox {
    commands: Receiver<Command>,
    event: Arc<EventFd>,
}

/// A command that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The queue is full.
    #[error("the data plane is busy: try again")]
    Busy,
    /// The thread is gone.
    #[error("the data plane has stopped")]
    Stopped,
}

/// Both ends.
///
/// # Errors
/// If the process has no descriptors left.
pub(crate) fn inbox() -> io::Result<(Caller, Inbox)> {
    let (sender, receiver) = sync_channel(COMMANDS_MAX);
    let event = Arc::new(EventFd::from_flags(
        EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
    )?);
    let caller = Caller {
        commands: sender,
        event: Arc::clone(&event),
    };
    Ok((
        caller,
        Inbox {
            commands: receiver,
            event,
        },
    ))
}

impl Caller {
    /// Queues a command and wakes the shard.
    ///
    /// # Errors
    /// [`CallError`]; the command was not queued.
    pub(crate) fn call(&self, command: Command) -> Result<(), CallError> {
        self.commands
            .try_send(command)
            .map_err(|error| match error {
                TrySendError::Full(_) => CallError::Busy,
                TrySendError::Disconnected(_) => CallError::Stopped,
            })?;
        // It fails only if the counter is at its maximum, and then the shard wakes as well.
        let _ = self.event.write(1);
        Ok(())
    }
}

impl Inbox {
    /// The next command. Call until `None` after every wake-up.
    pub(crate) fn next(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// Makes the descriptor quiet again; do so before reading the commands.
    pub(crate) fn silence(&self) {
        // `EAGAIN` says that it is quiet already.
        let _ = self.event.read();
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
