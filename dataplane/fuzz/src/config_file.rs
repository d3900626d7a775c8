//! Configuration files: what is understood can be written again, mistakes are where they are said to be, and the
//! resolver is asked only for names.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};

use ployz_dataplane::config_file::{Config, parse};
use ployz_engine::{AllowedIpChange, KEY_LEN, PeerUpdate};

use super::uapi::set;

/// The text of one file; what is not UTF-8 is no text.
pub fn config_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match parse(text, resolve) {
        Ok(config) => check_config(&config),
        Err(error) => {
            assert!((1..=text.lines().count()).contains(&error.line));
            assert_eq!(error.to_string().lines().count(), 1, "one line says it");
        }
    }
}

/// Some names exist, some do not.
fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    assert!(!host.is_empty() && host.parse::<IpAddr>().is_err() || host.contains('%'));
    if host.len().is_multiple_of(2) {
        Ok(([192, 0, 2, 1], port).into())
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn check_config(config: &Config) {
    let text = write(config);
    let again = parse(&text, |_, _| panic!("addresses need no resolver")).expect(&text);
    assert_eq!(write(&again), text);
    assert_eq!(set(&again.update), set(&config.update));
    assert_eq!(again.addresses, config.addresses);
    assert_eq!(again.mtu, config.mtu);
}

fn write(config: &Config) -> String {
    let mut text = "[Interface]\n".to_owned();
    let update = &config.update;
    if let Some(Some(key)) = &update.private_key {
        line(&mut text, "PrivateKey", base64(key.expose()));
    }
    line(&mut text, "ListenPort", update.listen_port.unwrap_or(0));
    line(&mut text, "FwMark", update.fwmark.unwrap_or(0));
    for address in &config.addresses {
        line(&mut text, "Address", address);
    }
    if let Some(mtu) = config.mtu {
        line(&mut text, "MTU", mtu);
    }
    for peer in &update.peers {
        write_peer(&mut text, peer);
    }
    text
}

fn write_peer(text: &mut String, peer: &PeerUpdate) {
    text.push_str("[Peer]\n");
    line(text, "PublicKey", peer.public_key);
    if let Some(key) = &peer.preshared_key {
        let bytes = key.as_ref().map_or(&[0; KEY_LEN], |key| key.expose());
        line(text, "PresharedKey", base64(bytes));
    }
    if let Some(endpoint) = peer.endpoint {
        line(text, "Endpoint", endpoint);
    }
    if let Some(seconds) = peer.persistent_keepalive_secs {
        line(text, "PersistentKeepalive", seconds);
    }
    let changes = peer.allowed_ips.iter().map(|change| match change {
        AllowedIpChange::Add(prefix) if peer.replace_allowed_ips => prefix.to_string(),
        AllowedIpChange::Add(prefix) => format!("+{prefix}"),
        AllowedIpChange::Remove(prefix) => format!("-{prefix}"),
    });
    let changes: Vec<String> = changes.collect();
    if !changes.is_empty() {
        line(text, "AllowedIPs", changes.join(","));
    }
}

fn line(text: &mut String, key: &str, value: impl std::fmt::Display) {
    writeln!(text, "{key} = {value}").expect("a string takes everything");
}

fn base64(bytes: &[u8; KEY_LEN]) -> String {
    // A public key shows itself as base64, and every 32 bytes are one.
    ployz_engine::PublicKey::from_bytes(*bytes).to_string()
}
