//! Failures of the store's server.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::host::error::HostError;

/// A failure of `nats-server`, or of what it takes to run it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NatsError {
    /// A file of the server's, or a program that runs it.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The program is not there, or is another one.
    #[error("{program} is no nats-server: {cause}")]
    NotNatsServer { program: PathBuf, cause: String },
    /// The server is older than the store requires.
    #[error(
        "{whose} is nats-server {version}; {oldest} is the oldest that keeps what it acknowledges"
    )]
    TooOld {
        whose: String,
        version: String,
        oldest: String,
    },
    /// The program cannot be started.
    #[error("cannot start {program}: {cause}")]
    Start { program: PathBuf, cause: io::Error },
    /// The server, or its unit, has ended before it could be recognised.
    #[error("{0} ended at once")]
    EndedAtOnce(String),
    /// A running server cannot be told to reload or to stop.
    #[error("cannot {action} nats-server: {cause}")]
    Signal { action: &'static str, cause: Errno },
    /// systemd does not name the process of a unit.
    #[error("systemd does not say which process {unit} runs as: {cause}")]
    NoMainPid {
        unit: String,
        cause: std::num::ParseIntError,
    },
    /// Settings are asked for on a machine that is not among the store's holders.
    #[error("this machine does not hold the store")]
    NotHolder,
}

impl NatsError {
    /// A signal that could not be sent, for `map_err`.
    pub(super) fn signal(action: &'static str) -> impl FnOnce(Errno) -> Self {
        move |cause| Self::Signal { action, cause }
    }
}
