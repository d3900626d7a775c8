//! The socket that requests go through.

use futures_util::{Stream, StreamExt};
use rtnetlink::Handle;

use super::error::NetlinkError;

/// A netlink socket for requests. Clones share it.
#[derive(Clone, Debug)]
pub struct Netlink {
    pub(super) handle: Handle,
}

impl Netlink {
    /// Opens a socket and spawns the task that drives it, which ends with the last clone. Needs a tokio runtime with
    /// I/O.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        // Strict checking is what makes the kernel filter a dump by interface.
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(NetlinkError::Open)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }
}

/// The first of the messages that answer a request, if it is not refused.
pub(super) async fn first<T>(
    answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<T, rtnetlink::Error> {
    std::pin::pin!(answers)
        .next()
        .await
        .unwrap_or(Err(rtnetlink::Error::RequestFailed))
}
