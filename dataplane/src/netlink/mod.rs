//! The kernel's side of an interface: its MTU, addresses and routes, and news of them, over rtnetlink.
//!
//! Everything here is about the network namespace in which [`Netlink::open`] was called.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "enums of the kernel's messages, of which a few of very many variants are ours"
)]

mod error;
mod link;
mod link_state;
mod socket;
mod watch;

pub use error::NetlinkError;
pub use link::Link;
pub use socket::Netlink;
pub use watch::{HostWatch, LinkChange, LinkWatch};

#[cfg(test)]
mod tests;
