//! Numbers, prefixes and endpoints as `wg` writes them, here and in configuration files.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use ipnet::IpNet;

/// Digits and nothing else: `FromStr` alone would take a sign.
pub(crate) fn decimal<T: FromStr>(text: &str) -> Option<T> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// `address/length`; the bits behind the length are kept.
pub(crate) fn prefix(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    IpNet::new(address.parse::<IpAddr>().ok()?, decimal(length)?).ok()
}

/// `address:port` or `[address]:port`, where the address may have a scope (`fe80::1%eth0`, `fe80::1%2`).
pub(crate) fn endpoint(text: &str, scope_of: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let Some(bracketed) = text.strip_prefix('[') else {
        let (address, port) = text.rsplit_once(':')?;
        return Some(SocketAddr::new(
            IpAddr::V4(address.parse().ok()?),
            decimal(port)?,
        ));
    };
    let (address, port) = bracketed.split_once("]:")?;
    let port = decimal(port)?;
    if let Some((address, scope)) = address.split_once('%') {
        let scope_id = scope_of(scope).or_else(|| decimal(scope))?;
        return Some(SocketAddrV6::new(address.parse().ok()?, port, 0, scope_id).into());
    }
    let address: Ipv6Addr = address.parse().ok()?;
    Some(SocketAddr::new(unmapped(address), port))
}

/// A mapped IPv4 address (`::ffff:192.0.2.1`) is an IPv4 address: no IPv6 socket of ours can send to it.
fn unmapped(address: Ipv6Addr) -> IpAddr {
    address
        .to_ipv4_mapped()
        .map_or(IpAddr::V6(address), |v4: Ipv4Addr| IpAddr::V4(v4))
}

/// The index of an interface by name, for the scope of a link-local endpoint.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_scopes(_: &str) -> Option<u32> {
        None
    }

    #[test]
    fn decimals_are_digits_within_range() {
        assert_eq!(decimal::<u16>("0"), Some(0));
        assert_eq!(decimal::<u16>("65535"), Some(65535));
        for text in [
            "",
            "+1",
            "-1",
            "65536",
            "0x10",
            " 1",
            "1 ",
            "99999999999999999999",
        ] {
            assert_eq!(decimal::<u16>(text), None, "{text:?}");
        }
    }

    #[test]
    fn prefixes_need_a_length_that_fits() {
        assert_eq!(prefix("10.1.2.3/8").unwrap().to_string(), "10.1.2.3/8");
        assert_eq!(prefix("::/0").unwrap().to_string(), "::/0");
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/+8",
            "/8",
            "a/8",
        ] {
            assert_eq!(prefix(text), None, "{text:?}");
        }
    }

    #[test]
    fn endpoints_have_an_address_and_a_port() {
        for text in ["192.0.2.1:51820", "[2001:db8::1]:51820", "192.0.2.1:0"] {
            assert_eq!(
                endpoint(text, no_scopes),
                Some(text.parse().unwrap()),
                "{text}"
            );
        }
        for text in [
            "",
            ":",
            "192.0.2.1",
            "192.0.2.1:",
            "192.0.2.1:65536",
            "192.0.2.1:+1",
            "host:1",
            "2001:db8::1:51820",
            "[2001:db8::1]",
            "[2001:db8::1]51820",
            "[192.0.2.1]:1",
            "[fe80::1%nowhere]:1",
            "[fe80::1%]:1",
        ] {
            assert_eq!(endpoint(text, no_scopes), None, "{text:?}");
        }
    }

    #[test]
    fn a_scope_is_a_name_or_a_number() {
        let by_name = endpoint("[fe80::1%eth0]:5", |name| (name == "eth0").then_some(7)).unwrap();
        assert_eq!(by_name.to_string(), "[fe80::1%7]:5");
        assert_eq!(endpoint("[fe80::1%7]:5", no_scopes), Some(by_name));
    }

    #[test]
    fn a_mapped_address_is_ipv4() {
        assert_eq!(
            endpoint("[::ffff:192.0.2.1]:5", no_scopes)
                .unwrap()
                .to_string(),
            "192.0.2.1:5"
        );
    }
}
