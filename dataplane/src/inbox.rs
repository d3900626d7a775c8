//! The inbox of a shard, for other threads: two short queues, one of commands and one of messages from its neighbours,
//! and a descriptor that wakes it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};
use ployz_engine::{
    Description, HANDOFFS_MAX, Handoff, PublicKey, Snapshot, Steer, Update, UpdateError,
};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Permit, Receiver, Sender, channel};
use tokio::sync::oneshot;

use crate::sys::ring::RingDepth;
use crate::sys::udp::UdpSockets;

/// Commands are rare and answered within a turn; more than this many waiting means that the shard is stuck.
pub(crate) const COMMANDS_MAX: usize = 16;

/// The commands to a shard.
#[derive(Debug)]
pub(crate) enum Command {
    /// Change the configuration.
    Apply(Change, oneshot::Sender<Result<(), UpdateError>>),
    /// Say everything.
    Describe(oneshot::Sender<Description>),
    /// Say what changes with traffic.
    Snapshot(oneshot::Sender<ShardSnapshot>),
    /// Test the way to peers, or to all, so many times in quick succession.
    Measure {
        count: u16,
        wanted: Option<Arc<BTreeSet<PublicKey>>>,
    },
    /// The interface's MTU, and the smallest of it and of those of the routes through it, in bytes.
    SetMtu { link: usize, smallest: usize },
    /// The host's addresses or routes have changed.
    ForgetLocals,
    /// End.
    Stop,
}

/// State that changes with traffic in one shard.
#[derive(Debug)]
pub(crate) struct ShardSnapshot {
    pub(crate) traffic: Snapshot,
    /// True if datagrams leave in batches.
    pub(crate) udp_gso: bool,
    /// With io_uring.
    pub(crate) ring: Option<RingDepth>,
}

/// A change of the configuration.
#[derive(Debug)]
pub(crate) struct Change {
    /// All shards share it, so that its secrets are not copied.
    pub(crate) update: Arc<Update>,
    /// The sockets to use from then on, if the port changes.
    pub(crate) sockets: Option<Arc<UdpSockets>>,
    /// The channel for changes of the steering, which the handshake shard sends before it answers.
    pub(crate) steering: Option<Sender<Vec<Steer>>>,
}

/// The sending end for commands.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    commands: Sender<Command>,
    event: Arc<EventFd>,
}

/// The sending end for messages of other shards.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    messages: Sender<Handoff>,
    event: Arc<EventFd>,
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Inbox {
    commands: Receiver<Command>,
    messages: Receiver<Handoff>,
    event: Arc<EventFd>,
}

/// Room in the queue for one command.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    permit: Permit<'a, Command>,
    event: &'a EventFd,
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

/// All ends.
///
/// # Errors
/// If the process has no descriptors left.
pub(crate) fn inbox() -> io::Result<(Caller, Neighbour, Inbox)> {
    let (to_commands, commands) = channel(COMMANDS_MAX);
    let (to_messages, messages) = channel(HANDOFFS_MAX);
    let event = Arc::new(EventFd::from_flags(
        EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
    )?);
    let caller = Caller {
        commands: to_commands,
        event: Arc::clone(&event),
    };
    let neighbour = Neighbour {
        messages: to_messages,
        event: Arc::clone(&event),
    };
    let inbox = Inbox {
        commands,
        messages,
        event,
    };
    Ok((caller, neighbour, inbox))
}

impl Caller {
    /// Keeps room for a command, so that several shards can be told the same, or none.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) fn reserve(&self) -> Result<Turn<'_>, CallError> {
        let permit = self.commands.try_reserve().map_err(|error| match error {
            TrySendError::Full(()) => CallError::Busy,
            TrySendError::Closed(()) => CallError::Stopped,
        })?;
        Ok(Turn {
            permit,
            event: &self.event,
        })
    }
}

impl Turn<'_> {
    /// Queues a command and wakes the shard.
    pub(crate) fn call(self, command: Command) {
        self.permit.send(command);
        wake(self.event);
    }
}

impl Neighbour {
    /// Queues a message and wakes the shard; false if it has too many.
    pub(crate) fn send(&self, message: Handoff) -> bool {
        let taken = self.messages.try_send(message).is_ok();
        wake(&self.event);
        taken
    }
}

impl Inbox {
    /// The next command. Call until `None` after every wake-up.
    pub(crate) fn next(&mut self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// The next message of a neighbour. Call until `None` after every wake-up.
    pub(crate) fn next_message(&mut self) -> Option<Handoff> {
        self.messages.try_recv().ok()
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

fn wake(event: &EventFd) {
    // It fails only if the counter is at its maximum, and then the shard wakes as well.
    let _ = event.write(1);
}
