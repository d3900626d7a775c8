//! Refusals of the kernel, in words for an operator.

use std::io;

use ipnet::IpNet;
use nix::errno::Errno;

/// The reason for which the kernel refused a request.
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
        /// The destination.
        prefix: IpNet,
        /// Through which interface it was to lead.
        link: String,
    },
    /// Any other refusal.
    #[error("cannot {action}: {source}")]
    Refused {
        /// The request.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An answer that is none, or a socket that is closed.
    #[error("cannot {action}: {cause}")]
    Unanswered {
        /// The request.
        action: String,
        /// The answer that came instead.
        cause: String,
    },
}

/// An error of the crate, before it is said what it was about.
pub(super) fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            Some(Errno::from_raw(message.raw_code().saturating_neg()))
        }
        _ => None,
    }
}

/// Says what was tried.
pub(super) fn failed(action: impl Into<String>, error: &rtnetlink::Error) -> NetlinkError {
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
