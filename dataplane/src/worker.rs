//! The thread of a shard: started, given commands, and stopped.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::backend::{Backend, BackendChoice};
use crate::driver::{self, DeviceShard};
use crate::inbox::{CallError, Caller, Command, Inbox};
use crate::neighbours::Neighbours;
use crate::options::DeviceError;

/// A thread that runs a shard. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Worker {
    caller: Caller,
    thread: Option<JoinHandle<io::Result<()>>>,
    backend: Backend,
}

/// The things that a shard needs to run.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) shard: DeviceShard,
    pub(crate) inbox: Inbox,
    pub(crate) neighbours: Neighbours,
}

impl Worker {
    /// Starts a thread, which tells by `alive` when it ends, however it ends.
    ///
    /// # Errors
    /// [`DeviceError`] if there is no thread, or not the loop that was asked for.
    pub(crate) fn start(
        task: Task,
        caller: Caller,
        choice: BackendChoice,
        alive: oneshot::Sender<()>,
    ) -> Result<Self, DeviceError> {
        let (started, backend) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(task.name.clone())
            .spawn(move || {
                let _alive = alive;
                run(task, choice, &started)
            })?;
        let backend = backend
            .recv()
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(Self {
            caller,
            thread: Some(thread),
            backend: backend?,
        })
    }

    /// The caller's end of its inbox.
    pub(crate) const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The loop that it runs.
    pub(crate) const fn backend(&self) -> Backend {
        self.backend
    }

    /// Asks it to stop.
    pub(crate) fn ask_to_stop(&self) {
        loop {
            match self.caller.reserve() {
                Ok(turn) => return turn.call(Command::Stop),
                Err(CallError::Stopped) => return,
                // If the queue is full the thread has commands to read, and the next try finds room.
                Err(CallError::Busy) => std::thread::yield_now(),
            }
        }
    }

    /// Stops it, if that has not been done.
    ///
    /// # Errors
    /// The error that ended the loop, if it was not this call.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.ask_to_stop();
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the data plane panicked")))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "the data plane had failed");
        }
    }
}

/// The thread: picks a loop, says which, runs it.
fn run(
    task: Task,
    choice: BackendChoice,
    started: &mpsc::SyncSender<Result<Backend, DeviceError>>,
) -> io::Result<()> {
    let Task {
        shard,
        mut inbox,
        neighbours,
        ..
    } = task;
    let ring = match choice {
        BackendChoice::Epoll => None,
        BackendChoice::Auto | BackendChoice::IoUring => match driver::uring::ring() {
            Ok(ring) => Some(ring),
            Err(error) if choice == BackendChoice::IoUring => {
                // The creator waits for this, so it is there to hear it.
                let _ = started.send(Err(DeviceError::NoIoUring(explain(&error))));
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(reason = explain(&error), "no io_uring, using epoll");
                None
            }
        },
    };
    let backend = if ring.is_some() {
        Backend::IoUring
    } else {
        Backend::Epoll
    };
    let _ = started.send(Ok(backend));
    let result = match ring {
        Some(ring) => driver::uring::run(shard, ring, &mut inbox, &neighbours),
        None => driver::epoll::run(shard, &mut inbox, &neighbours),
    };
    if let Err(error) = &result {
        tracing::error!(%error, backend = backend.name(), "the data plane failed");
    }
    result
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "the kernel or a sandbox forbids it".to_owned(),
        Some(libc::ENOSYS) => "the kernel has none".to_owned(),
        _ if error.kind() == io::ErrorKind::Unsupported => {
            "the kernel is older than 6.7 and has no multishot reads".to_owned()
        }
        _ => error.to_string(),
    }
}
