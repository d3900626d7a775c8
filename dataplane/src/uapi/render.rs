//! Answers of the userspace protocol.
//!
//! The sign of an error number is not what the protocol's page says but what `wg` understands: after `set` it negates
//! the number to print it, after `get` it takes digits only.

use std::fmt::{Display, Write as _};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use ployz_engine::{KEY_LEN, PeerDescription};
use zeroize::Zeroizing;

use super::interface::InterfaceDescription;
use super::operation::Operation;

/// The answer to `get=1`. It holds secrets: the buffer is wiped when it is dropped.
pub fn description(interface: &InterfaceDescription) -> Zeroizing<String> {
    let capacity = description_len_max(interface);
    // Growing would leave copies of the keys behind in memory that is not wiped.
    let mut out = Zeroizing::new(String::with_capacity(capacity));
    if let Some(private_key) = &interface.device.private_key {
        push_key(&mut out, "private_key", private_key.expose());
    }
    if interface.listen_port != 0 {
        push(&mut out, "listen_port", interface.listen_port);
    }
    if interface.fwmark != 0 {
        push(&mut out, "fwmark", interface.fwmark);
    }
    for peer in &interface.device.peers {
        push_peer(&mut out, peer, interface.now, interface.unix_now);
    }
    end(&mut out, 0);
    debug_assert!(out.len() <= capacity);
    out
}

/// The answer to a `set=1` that was applied.
pub fn applied() -> Zeroizing<String> {
    let mut out = Zeroizing::default();
    end(&mut out, 0);
    out
}

/// The answer to `status=1`. Line ends within a key or a value would be read as lines of their own and become spaces.
pub fn status<'a>(lines: impl IntoIterator<Item = (&'a str, &'a str)>) -> Zeroizing<String> {
    let mut out: Zeroizing<String> = Zeroizing::default();
    for (key, value) in lines {
        out.extend(
            key.chars()
                .map(|c| if c == '=' { '_' } else { on_one_line(c) }),
        );
        out.push('=');
        out.extend(value.chars().map(on_one_line));
        out.push('\n');
    }
    end(&mut out, 0);
    out
}

/// The answer to what was refused.
pub fn refusal(operation: Option<Operation>, errno: Errno) -> Zeroizing<String> {
    // 0 would be a success.
    let number = if errno == Errno::UnknownErrno {
        Errno::EIO as i32
    } else {
        errno as i32
    };
    let mut out = Zeroizing::default();
    match operation {
        Some(Operation::Set) => end(&mut out, -number),
        Some(Operation::Get | Operation::Status | Operation::Measure(_)) | None => {
            end(&mut out, number)
        }
    }
    out
}

fn push_peer(out: &mut String, peer: &PeerDescription, now: Instant, unix_now: Duration) {
    push_key(out, "public_key", peer.state.public_key.as_bytes());
    if let Some(preshared_key) = &peer.preshared_key {
        push_key(out, "preshared_key", preshared_key.expose());
    }
    push(out, "protocol_version", 1);
    if let Some(endpoint) = peer.state.endpoint {
        push(out, "endpoint", endpoint);
    }
    let handshake = peer
        .state
        .last_handshake
        .map_or(Duration::ZERO, |last_handshake| {
            unix_now.saturating_sub(now.saturating_duration_since(last_handshake))
        });
    push(out, "last_handshake_time_sec", handshake.as_secs());
    push(out, "last_handshake_time_nsec", handshake.subsec_nanos());
    push(out, "tx_bytes", peer.state.tx_bytes);
    push(out, "rx_bytes", peer.state.rx_bytes);
    push(
        out,
        "persistent_keepalive_interval",
        peer.persistent_keepalive_secs,
    );
    for prefix in &peer.allowed_ips {
        push(out, "allowed_ip", prefix);
    }
}

/// More than [`description`] takes.
fn description_len_max(interface: &InterfaceDescription) -> usize {
    /// `private_key` 77, `listen_port` 18, `fwmark` 18, `errno` 9.
    const INTERFACE: usize = 128;
    /// Keys 76 + 79, version 19, endpoint with a scope 75, handshake 45 + 36, bytes 2 * 30, keepalive 36.
    const PEER: usize = 432;
    /// `allowed_ip=`, 39 characters of IPv6, `/128`.
    const PREFIX: usize = 56;
    let prefixes: usize = interface
        .device
        .peers
        .iter()
        .map(|peer| peer.allowed_ips.len())
        .sum();
    INTERFACE + PEER * interface.device.peers.len() + PREFIX * prefixes
}

fn push(out: &mut String, key: &str, value: impl Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{key}={value}");
}

fn push_key(out: &mut String, name: &str, key: &[u8; KEY_LEN]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push_str(name);
    out.push('=');
    for byte in key {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 0xf)]));
    }
    out.push('\n');
}

fn end(out: &mut String, number: i32) {
    let _ = write!(out, "errno={number}\n\n");
}

fn on_one_line(c: char) -> char {
    if c == '\n' || c == '\r' { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use ployz_engine::{Description, PeerSnapshot, PresharedKey, PrivateKey, PublicKey};

    use super::*;

    #[test]
    fn an_empty_interface_says_only_that_all_is_well() {
        assert_eq!(*description(&interface(Vec::new())), "errno=0\n\n");
    }

    #[test]
    fn everything_is_shown() {
        let epoch = epoch();
        let mut described = interface(vec![PeerDescription {
            state: PeerSnapshot {
                endpoint: Some("[fe80::1%2]:51820".parse().unwrap()),
                rx_bytes: 1,
                tx_bytes: u64::MAX,
                last_handshake: Some(epoch + Duration::from_millis(1500)),
                ..PeerSnapshot::unheard(PublicKey::from_bytes([0xab; KEY_LEN]))
            },
            preshared_key: PresharedKey::from_bytes([0x0c; KEY_LEN]),
            persistent_keepalive_secs: 25,
            allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/64".parse().unwrap()],
        }]);
        described.device.private_key = Some(PrivateKey::from_bytes([0x40; KEY_LEN]));
        described.listen_port = 51820;
        described.fwmark = 0xca6c;
        described.now = epoch + Duration::from_secs(11);
        described.unix_now = Duration::from_secs(1_700_000_000);
        let expected = format!(
            "private_key={key}\nlisten_port=51820\nfwmark=51820\npublic_key={peer}\npreshared_key={preshared}\n\
             protocol_version=1\nendpoint=[fe80::1%2]:51820\nlast_handshake_time_sec=1699999990\n\
             last_handshake_time_nsec=500000000\ntx_bytes=18446744073709551615\nrx_bytes=1\n\
             persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/64\nerrno=0\n\n",
            key = "40".repeat(KEY_LEN),
            peer = "ab".repeat(KEY_LEN),
            preshared = "0c".repeat(KEY_LEN),
        );
        assert_eq!(*description(&described), expected);
    }

    #[test]
    fn a_peer_never_heard_from_has_no_time() {
        let text = description(&interface(vec![peer(1)]));
        assert!(
            text.contains("last_handshake_time_sec=0\nlast_handshake_time_nsec=0\n"),
            "{}",
            *text
        );
        assert!(!text.contains("endpoint"));
        assert!(!text.contains("preshared_key"));
    }

    #[test]
    fn the_buffer_never_grows() {
        let mut widest = peer(0xff);
        widest.preshared_key = PresharedKey::from_bytes([0xff; KEY_LEN]);
        let endpoint = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535";
        widest.state.endpoint = Some(endpoint.parse().unwrap());
        widest.state.rx_bytes = u64::MAX;
        widest.state.tx_bytes = u64::MAX;
        widest.state.last_handshake = Some(epoch());
        widest.persistent_keepalive_secs = u16::MAX;
        widest.allowed_ips = vec![
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"
                .parse()
                .unwrap();
            1000
        ];
        let mut described = interface(vec![widest]);
        described.device.private_key = Some(PrivateKey::from_bytes([0xff; KEY_LEN]));
        described.listen_port = u16::MAX;
        described.fwmark = u32::MAX;
        described.unix_now = Duration::MAX;
        let capacity = description_len_max(&described);
        let text = description(&described);
        assert!(text.len() <= capacity, "{} > {capacity}", text.len());
    }

    #[test]
    fn refusals_have_the_sign_that_wg_understands() {
        assert_eq!(
            *refusal(Some(Operation::Set), Errno::EINVAL),
            "errno=-22\n\n"
        );
        assert_eq!(
            *refusal(Some(Operation::Get), Errno::EINVAL),
            "errno=22\n\n"
        );
        assert_eq!(*refusal(None, Errno::UnknownErrno), "errno=5\n\n");
    }

    #[test]
    fn status_lines_cannot_forge_an_end() {
        let text = status([("backend", "io_uring"), ("a=b", "x\n\nerrno=1")]);
        assert_eq!(*text, "backend=io_uring\na_b=x  errno=1\nerrno=0\n\n");
    }

    fn interface(peers: Vec<PeerDescription>) -> InterfaceDescription {
        InterfaceDescription {
            listen_port: 0,
            fwmark: 0,
            device: Description {
                private_key: None,
                peers,
            },
            now: epoch(),
            unix_now: Duration::from_secs(1),
        }
    }

    fn peer(byte: u8) -> PeerDescription {
        PeerDescription {
            state: PeerSnapshot::unheard(PublicKey::from_bytes([byte; KEY_LEN])),
            preshared_key: None,
            persistent_keepalive_secs: 0,
            allowed_ips: Vec::new(),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an instant cannot be made otherwise"
    )]
    fn epoch() -> Instant {
        static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *EPOCH.get_or_init(Instant::now)
    }
}
