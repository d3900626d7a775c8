//! Where a peer is, and from which of our addresses it was reached.

use std::net::{IpAddr, SocketAddr};

/// The UDP address a peer was last authenticated from, with the address of ours that it had used.
///
/// Answers leave from `local`, so that a host with several addresses is not mistaken for another (the kernel's
/// `wg_socket_set_peer_endpoint_from_skb`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Ours, as the last datagram from there named it; `None` lets the kernel choose.
    pub local: Option<LocalAddress>,
}

/// Our own end of an [`Endpoint`], as `IP_PKTINFO` and `IPV6_PKTINFO` tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// Destination address of the datagram that arrived.
    pub ip: IpAddr,
    /// Interface that it arrived on.
    pub interface_index: u32,
}

impl Endpoint {
    /// An endpoint that was configured and has not been heard from.
    pub const fn configured(remote: SocketAddr) -> Self {
        Self {
            remote,
            local: None,
        }
    }
}
