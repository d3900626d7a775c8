//! The meaning of each setting.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use ployz_engine::{AllowedIpChange, PeerUpdate, PresharedKey, PrivateKey, PublicKey};

use super::config::Config;
use super::error::{self, Problem};
use crate::uapi::literal;

pub(super) fn set_interface(config: &mut Config, key: &str, value: &str) -> Result<(), Problem> {
    let update = &mut config.update;
    match key.to_ascii_lowercase().as_str() {
        "privatekey" => {
            let key = PrivateKey::from_base64(value);
            update.private_key = Some(key.map_err(|_| Problem::value("PrivateKey", KEY))?);
        }
        "listenport" => {
            update.listen_port = Some(number(value, "ListenPort", "a number from 0 to 65535")?);
        }
        "fwmark" => {
            let mark = fwmark(value).ok_or_else(|| Problem::value("FwMark", FWMARK))?;
            update.fwmark = Some(mark);
        }
        "address" => {
            for item in value.split(',') {
                let address = address(item).ok_or_else(|| Problem::value("Address", ADDRESS))?;
                config.addresses.push(address);
            }
        }
        "mtu" => {
            let mtu: u32 = number(value, "MTU", MTU)?;
            // What a TUN device takes.
            if !(68..=65535).contains(&mtu) {
                return Err(Problem::value("MTU", MTU));
            }
            config.mtu = Some(mtu);
        }
        "dns" | "table" | "preup" | "postup" | "predown" | "postdown" | "saveconfig" => {
            return Err(Problem::WgQuick(error::shown(key)));
        }
        _ => {
            return Err(Problem::UnknownKey {
                section: "Interface",
                key: error::shown(key),
                known: "PrivateKey, ListenPort, FwMark, Address and MTU",
            });
        }
    }
    Ok(())
}

pub(super) fn set_peer(
    public_key: &mut Option<PublicKey>,
    settings: &mut PeerUpdate,
    key: &str,
    value: &str,
    resolve: impl Fn(&str, u16) -> io::Result<SocketAddr>,
) -> Result<(), Problem> {
    match key.to_ascii_lowercase().as_str() {
        "publickey" => {
            let key = PublicKey::from_base64(value);
            *public_key = Some(key.map_err(|_| Problem::value("PublicKey", KEY))?);
        }
        "presharedkey" => {
            let key = PresharedKey::from_base64(value);
            settings.preshared_key = Some(key.map_err(|_| Problem::value("PresharedKey", KEY))?);
        }
        "allowedips" => set_allowed_ips(settings, value)?,
        "endpoint" => settings.endpoint = Some(endpoint(value, resolve)?),
        "persistentkeepalive" => {
            settings.persistent_keepalive_secs = Some(if value.eq_ignore_ascii_case("off") {
                0
            } else {
                number(
                    value,
                    "PersistentKeepalive",
                    "a number of seconds up to 65535, or off",
                )?
            });
        }
        _ => {
            return Err(Problem::UnknownKey {
                section: "Peer",
                key: error::shown(key),
                known: "PublicKey, PresharedKey, AllowedIPs, Endpoint and PersistentKeepalive",
            });
        }
    }
    Ok(())
}

const KEY: &str = "44 characters of base64, as `wg genkey` prints them";
const FWMARK: &str = "a number up to 4294967295 (0xffffffff), or off";
const ADDRESS: &str = "addresses separated by commas, each with or without /length";
const MTU: &str = "a number from 68 to 65535";
const ALLOWED_IPS: &str = "prefixes (address/length) separated by commas";
const ENDPOINT: &str = "address:port, [address]:port or host:port";

/// Prefixes with a sign change what a peer has; a line of prefixes without one replaces it.
fn set_allowed_ips(settings: &mut PeerUpdate, value: &str) -> Result<(), Problem> {
    settings.replace_allowed_ips = true;
    for item in value.split(',').filter(|_| !value.is_empty()) {
        let unsigned = item.strip_prefix(['+', '-']).unwrap_or(item);
        settings.replace_allowed_ips &= unsigned == item;
        let prefix = address(unsigned).ok_or_else(|| Problem::value("AllowedIPs", ALLOWED_IPS))?;
        settings.allowed_ips.push(if item.starts_with('-') {
            AllowedIpChange::Remove(prefix.trunc())
        } else {
            AllowedIpChange::Add(prefix.trunc())
        });
    }
    Ok(())
}

/// An address alone is its own prefix.
fn address(text: &str) -> Option<IpNet> {
    literal::prefix(text).or_else(|| text.parse().ok().map(|address: IpAddr| address.into()))
}

fn endpoint(
    value: &str,
    resolve: impl Fn(&str, u16) -> io::Result<SocketAddr>,
) -> Result<SocketAddr, Problem> {
    if let Some(address) = literal::endpoint(value, literal::interface_index) {
        return Ok(address);
    }
    let invalid = || Problem::value("Endpoint", ENDPOINT);
    let (host, port) = value.rsplit_once(':').ok_or_else(invalid)?;
    let port = literal::decimal(port).ok_or_else(invalid)?;
    // An address here is one without its brackets.
    if host.is_empty() || host.contains([':', '[', ']', '/']) {
        return Err(invalid());
    }
    resolve(host, port).map_err(|error| Problem::Unresolved {
        host: error::shown(host),
        cause: error.to_string(),
    })
}

fn fwmark(value: &str) -> Option<u32> {
    if value.eq_ignore_ascii_case("off") {
        return Some(0);
    }
    match value.strip_prefix("0x") {
        // A sign is no hexadecimal digit.
        Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
        _ => literal::decimal(value),
    }
}

fn number<T: FromStr>(
    value: &str,
    key: &'static str,
    expected: &'static str,
) -> Result<T, Problem> {
    literal::decimal(value).ok_or_else(|| Problem::value(key, expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fwmarks() {
        for (text, mark) in [
            ("0", 0),
            ("51820", 51820),
            ("0xFF", 255),
            ("0xffffffff", u32::MAX),
            ("off", 0),
        ] {
            assert_eq!(fwmark(text), Some(mark), "{text}");
        }
        for text in [
            "",
            "0x",
            "0x+1",
            "0x100000000",
            "4294967296",
            "-1",
            "ff",
            "on",
        ] {
            assert_eq!(fwmark(text), None, "{text}");
        }
    }
}
