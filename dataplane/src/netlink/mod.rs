//! The kernel's side of an interface: its MTU, addresses and routes, and news of them, over rtnetlink.
//!
//! Everything here is about the network namespace in which [`Netlink::open`] was called.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "enums of the kernel's messages, of which a few of very many variants are ours"
)]

use std::io;

use futures_util::{Stream, StreamExt};
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::Handle;

mod link;
mod watch;

pub use link::Link;
pub use watch::{HostWatch, LinkChange, LinkWatch};

/// A netlink socket for requests. Clones share it.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
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

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error(
        "cannot open a netlink socket: {0}; allow AF_NETLINK sockets where the service is confined"
    )]
    Open(#[source] io::Error),
    /// No interface of that name in this namespace.
    #[error("there is no network interface {0:?} here; `ip link` shows those that are")]
    NoSuchLink(String),
    /// No privileges.
    #[error("not permitted to {0}; run as root or with CAP_NET_ADMIN")]
    NotPermitted(String),
    /// Another interface has the route.
    #[error(
        "another interface has the route to {prefix}; remove it (`ip route del {prefix}`) to route it through {link}"
    )]
    RouteTaken {
        /// Where to.
        prefix: IpNet,
        /// Through which interface it was to lead.
        link: String,
    },
    /// Any other refusal.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was asked.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An answer that is none, or a socket that is closed.
    #[error("cannot {action}: {cause}")]
    Unanswered {
        /// What was asked.
        action: String,
        /// What came instead.
        cause: String,
    },
}

/// An error of the crate, before it is said what it was about.
fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            Some(Errno::from_raw(message.raw_code().saturating_neg()))
        }
        _ => None,
    }
}

/// Says what was tried.
fn failed(action: impl Into<String>, error: &rtnetlink::Error) -> NetlinkError {
    let action = action.into();
    match errno(error) {
        Some(Errno::EPERM | Errno::EACCES) => NetlinkError::NotPermitted(action),
        Some(errno) => NetlinkError::Refused {
            action,
            source: errno.into(),
        },
        None => NetlinkError::Unanswered {
            action,
            cause: error.to_string(),
        },
    }
}

/// The first of the messages that answer a request, if it is not refused.
async fn first<T>(
    answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<T, rtnetlink::Error> {
    std::pin::pin!(answers)
        .next()
        .await
        .unwrap_or(Err(rtnetlink::Error::RequestFailed))
}

#[cfg(test)]
mod tests;
