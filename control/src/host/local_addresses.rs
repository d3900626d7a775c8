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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_at_one_address_is_reached_there_and_one_at_all_addresses_wherever_others_can() {
        let one: SocketAddr = "192.0.2.1:51821".parse().unwrap();
        assert_eq!(endpoints(one, "ployz0"), [one]);
        for listen in ["0.0.0.0:51821", "[::]:51821"] {
            let listen: SocketAddr = listen.parse().unwrap();
            let all = endpoints(listen, "ployz0");
            assert!(
                all.iter()
                    .all(|it| it.port() == 51_821 && !it.ip().is_loopback())
            );
            assert!(
                listen.is_ipv6() || all.iter().all(SocketAddr::is_ipv4),
                "{all:?}"
            );
            assert!(all.is_sorted_by_key(|it| rank(it.ip())), "{all:?}");
        }
        // Nobody else reaches the loopback network, so it is nobody's obstacle.
        assert_eq!(overlap("127.0.0.0/8".parse().unwrap(), "ployz0"), None);
    }

    #[test]
    fn private_addresses_come_first_and_those_that_lead_nowhere_not_at_all() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for nowhere in [
            "127.0.0.1",
            "169.254.1.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "::",
        ] {
            assert!(!reachable(ip(nowhere)), "{nowhere}");
        }
        let mut all = ["2001:db8::1", "192.0.2.1", "10.0.0.1"].map(ip);
        assert!(all.iter().all(|it| reachable(*it)));
        all.sort_by_key(|it| rank(*it));
        assert_eq!(all, ["10.0.0.1", "192.0.2.1", "2001:db8::1"].map(ip));
    }
}
