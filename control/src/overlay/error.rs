//! Failures of the overlay's interface.

use std::io;

use ipnet::PrefixLenError;
use ployz_dataplane::DeviceError;
use ployz_dataplane::netlink::NetlinkError;
use ployz_dataplane::uapi::{InterfaceError, ServerError};

/// A failure of the interface, or of the data plane behind it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OverlayError {
    /// The interface cannot be made.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The kernel refused a change of the interface, its addresses or its routes.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The socket that `wg` connects to is not available.
    #[error(transparent)]
    Socket(#[from] ServerError),
    /// The data plane refused a command, or did not answer it.
    #[error("cannot {action}: {cause}")]
    Command {
        action: &'static str,
        cause: InterfaceError,
    },
    /// The data plane has ended by itself.
    #[error("the data plane has ended")]
    Ended,
    /// The descriptors that the supervisor has kept cannot be taken.
    #[error("cannot take the descriptors that the supervisor has kept (LISTEN_FDS): {0}")]
    Kept(io::Error),
    /// The supervisor cannot be asked to drop descriptors that are of no use.
    #[error("cannot have the supervisor drop the descriptors that it has kept: {0}")]
    Drop(io::Error),
    /// An address has a prefix that is too long.
    #[error(transparent)]
    Prefix(#[from] PrefixLenError),
}

impl OverlayError {
    /// A failed command, for `map_err`.
    pub(super) fn command(action: &'static str) -> impl FnOnce(InterfaceError) -> Self {
        move |cause| Self::Command { action, cause }
    }
}
