//! Failures of connections and of the streams on them.

use std::io;
use std::time::Duration;

use ployz_api::FrameError;
use ployz_api::client::ClientError;
use quinn::ConnectionError;

use crate::host::error::HostError;

/// A connection or a stream that has ended before its answer was sent. The client sees that by itself: these are
/// logged, and nothing else.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// The connection has ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The stream has ended.
    #[error(transparent)]
    Stream(#[from] io::Error),
    /// An answer is too long, or cannot be rendered.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A client took longer than it may.
    #[error("the client {omission} within {patience:?}")]
    TimedOut {
        omission: &'static str,
        patience: Duration,
    },
    /// The machine that a stream is forwarded to has ended it.
    #[error(transparent)]
    Onward(#[from] ClientError),
    /// TLS within a stream cannot be set up.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A stream is forwarded to a machine that has left the network.
    #[error("this machine is in no network")]
    NoNetwork,
    /// A certificate of the network's authority does not name its holder.
    #[error("the certificate does not name its holder")]
    Unnamed,
}
