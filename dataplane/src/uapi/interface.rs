//! The interface as the protocol's server sees it.

use std::future::Future;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use ployz_engine::{Description, Update};

/// An interface that the server speaks for.
///
/// Calls overlap when several clients are connected, and none of the futures has to be `Send`.
pub trait Interface {
    /// Applies an update whole, or not at all.
    fn apply(&self, update: Update) -> impl Future<Output = Result<(), InterfaceError>>;

    /// Says what the interface holds.
    fn describe(&self) -> impl Future<Output = Result<InterfaceDescription, InterfaceError>>;

    /// Begins `measure=COUNT`.
    fn measure(&self, count: u16) -> impl Future<Output = Result<(), InterfaceError>>;

    /// Keys and values for `status=1`, in the order in which they are shown.
    fn status(&self) -> impl Future<Output = Result<Vec<(String, String)>, InterfaceError>>;
}

/// The answer to `get=1`, with the clocks that it takes to read it.
#[derive(Debug)]
pub struct InterfaceDescription {
    /// The UDP port in use; 0 while there is none.
    pub listen_port: u16,
    /// Mark of outer packets; 0 for none.
    pub fwmark: u32,
    /// Our key and the peers.
    pub device: Description,
    /// The engine's clock at this moment.
    pub now: Instant,
    /// The same moment since 1970.
    pub unix_now: Duration,
}

/// The reason for which an interface refused a request: the number goes to the client, the message to the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InterfaceError {
    /// The error that `wg` prints.
    pub errno: Errno,
    /// The cause, and the remedy.
    pub message: String,
}

impl InterfaceError {
    /// An error that `wg` shows as `errno`.
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self {
            errno,
            message: message.into(),
        }
    }
}
