//! The host's addresses.

use std::net::{IpAddr, SocketAddr};

use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

/// The host's addresses that other machines might reach, private ones first: machines of a network are mostly close to
/// each other.
pub(crate) fn addresses(except_interface: &str) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = getifaddrs()
        .into_iter()
        .flatten()
        .filter(|entry| entry.interface_name != except_interface)
        .filter_map(|entry| ip(&entry.address?))
        .filter(|address| reachable(*address))
        .collect();
    addresses.sort_by_key(|address| (rank(*address), *address));
    addresses.dedup();
    addresses
}

/// The endpoints at which other machines reach `listen`.
pub(crate) fn endpoints(listen: SocketAddr, except_interface: &str) -> Vec<SocketAddr> {
    if !listen.ip().is_unspecified() {
        return vec![listen];
    }
    addresses(except_interface)
        .into_iter()
        .filter(|address| listen.is_ipv6() || address.is_ipv4())
        .map(|address| SocketAddr::new(address, listen.port()))
        .collect()
}

/// An address of the host within `network`, if there is one.
pub(crate) fn overlap(network: Ipv4Net, except_interface: &str) -> Option<IpAddr> {
    addresses(except_interface)
        .into_iter()
        .find(|address| match address {
            IpAddr::V4(address) => network.contains(address),
            IpAddr::V6(_) => false,
        })
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|address| IpAddr::V6(address.ip()))
    })
}

const fn reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

const fn rank(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) if v4.is_private() => 0,
        IpAddr::V4(_) => 1,
        IpAddr::V6(_) => 2,
    }
}
