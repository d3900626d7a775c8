//! A configuration as `wg setconf` reads it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::keys::Keys;

pub(crate) const PORT: u16 = 51_820;

pub(crate) struct Peer {
    pub(crate) public_base64: String,
    pub(crate) allowed_ip: Ipv4Addr,
    pub(crate) endpoint: Option<SocketAddrV4>,
    pub(crate) keepalive_seconds: u16,
}

pub(crate) struct WgConf {
    pub(crate) keys: Keys,
    pub(crate) peers: Vec<Peer>,
}

impl WgConf {
    pub(crate) fn render(&self) -> String {
        let private = self.keys.private_base64();
        let mut text = format!("[Interface]\nPrivateKey = {private}\nListenPort = {PORT}\n");
        for peer in &self.peers {
            let _ = writeln!(text, "[Peer]\nPublicKey = {}", peer.public_base64);
            let _ = writeln!(text, "AllowedIPs = {}/32", peer.allowed_ip);
            if let Some(endpoint) = peer.endpoint {
                let _ = writeln!(text, "Endpoint = {endpoint}");
            }
            if peer.keepalive_seconds > 0 {
                let _ = writeln!(text, "PersistentKeepalive = {}", peer.keepalive_seconds);
            }
        }
        text
    }
}
