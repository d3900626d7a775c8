//! Requests of the userspace protocol: what is understood can be said again, and an interface that was set from what
//! another says about itself says the same.

use std::fmt::Write as _;
use std::time::Duration;

use ployz_dataplane::uapi::InterfaceDescription;
use ployz_dataplane::uapi::parse::{ParseError, Request, RequestParser, parse};
use ployz_dataplane::uapi::render;
use ployz_engine::{
    AllowedIpChange, Departure, Drop, Endpoint, Engine, KEY_LEN, PeerUpdate, ShardMap, Sink, Update,
};

use super::hosts::{clock, sources};

/// Every peer costs two scalar multiplications when it is applied.
const APPLIED_PEERS_MAX: usize = 20;

/// One text, which may hold several requests.
pub fn uapi(data: &[u8]) {
    let first = parse(data, scope_of);
    check_error(data, first.as_ref().err());
    let mut parser = RequestParser::new(scope_of);
    let lines = data.split_inclusive(|byte| *byte == b'\n');
    let whole = lines.filter_map(|line| line.strip_suffix(b"\n"));
    let mut requests = whole.filter_map(|line| parser.line(line));
    if let Some(request) = requests.next() {
        assert_eq!(format!("{request:?}"), format!("{first:?}"));
    }
    for request in [first].into_iter().chain(requests) {
        if let Ok(Request::Set(update)) = request {
            check_update(update);
        }
    }
}

/// Names of interfaces, none of which is a number.
fn scope_of(name: &str) -> Option<u32> {
    name.starts_with("eth").then_some(7)
}

fn check_error(data: &[u8], error: Option<&ParseError>) {
    let Some(error) = error else {
        return;
    };
    let lines = data
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    assert!(error.line <= lines.count());
    let answer = render::refusal(error.operation, error.mistake.errno());
    assert!(answer.starts_with("errno=") && *answer != *render::applied());
}

fn check_update(update: Update) {
    let text = set(&update);
    let again = parse(text.as_bytes(), scope_of).expect("what was understood is said again");
    let Request::Set(again) = again else {
        panic!("a set stays a set");
    };
    assert_eq!(set(&again), text);
    if again.peers.len() <= APPLIED_PEERS_MAX {
        let described = describe(again);
        let request = format!("set=1\n{}", settable(&described));
        let Ok(Request::Set(copied)) = parse(request.as_bytes(), scope_of) else {
            panic!("a description is a request: {request}");
        };
        assert_eq!(describe(copied), described);
    }
}

/// What an interface that was empty says of itself once it is set.
fn describe(update: Update) -> String {
    let mut engine = Engine::new(ShardMap::ONLY, sources(0));
    let (listen_port, fwmark) = (update.listen_port, update.fwmark);
    let now = clock();
    engine.apply(now, &update, &mut Nowhere).expect("few peers");
    let description = render::description(&InterfaceDescription {
        listen_port: listen_port.unwrap_or(0),
        fwmark: fwmark.unwrap_or(0),
        device: engine.describe(),
        now,
        unix_now: Duration::from_secs(1),
    });
    // Traffic is not configuration.
    let is_traffic = |line: &&str| !line.starts_with("tx_bytes") && !line.starts_with("rx_bytes");
    let lines: Vec<&str> = description.lines().filter(is_traffic).collect();
    lines.join("\n") + "\n"
}

/// A description without what can only be read, as `wg setconf` makes one of another.
fn settable(description: &str) -> String {
    let is_settable = |line: &&str| {
        let key = line.split('=').next().unwrap_or_default();
        !matches!(
            key,
            "errno" | "last_handshake_time_sec" | "last_handshake_time_nsec"
        )
    };
    let lines: Vec<&str> = description.lines().filter(is_settable).collect();
    lines.join("\n") + "\n\n"
}

/// The request that asks for this update.
pub(crate) fn set(update: &Update) -> String {
    let mut text = "set=1\n".to_owned();
    if let Some(key) = &update.private_key {
        line(
            &mut text,
            "private_key",
            hex(key.as_ref().map(|key| key.expose())),
        );
    }
    if let Some(port) = update.listen_port {
        line(&mut text, "listen_port", port);
    }
    if let Some(fwmark) = update.fwmark {
        line(&mut text, "fwmark", fwmark);
    }
    if update.replace_peers {
        line(&mut text, "replace_peers", true);
    }
    for peer in &update.peers {
        set_peer(&mut text, peer);
    }
    text + "\n"
}

fn set_peer(text: &mut String, peer: &PeerUpdate) {
    line(text, "public_key", peer.public_key.to_hex());
    for (key, is_set) in [
        ("remove", peer.remove),
        ("update_only", peer.update_only),
        ("replace_allowed_ips", peer.replace_allowed_ips),
    ] {
        if is_set {
            line(text, key, true);
        }
    }
    if let Some(key) = &peer.preshared_key {
        line(
            text,
            "preshared_key",
            hex(key.as_ref().map(|key| key.expose())),
        );
    }
    if let Some(endpoint) = peer.endpoint {
        line(text, "endpoint", endpoint);
    }
    if let Some(seconds) = peer.persistent_keepalive_secs {
        line(text, "persistent_keepalive_interval", seconds);
    }
    for change in &peer.allowed_ips {
        match change {
            AllowedIpChange::Add(prefix) => line(text, "allowed_ip", prefix),
            AllowedIpChange::Remove(prefix) => line(text, "allowed_ip", format!("-{prefix}")),
        }
    }
}

fn line(text: &mut String, key: &str, value: impl std::fmt::Display) {
    writeln!(text, "{key}={value}").expect("a string takes everything");
}

fn hex(key: Option<&[u8; KEY_LEN]>) -> String {
    let bytes = key.unwrap_or(&[0; KEY_LEN]);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An engine that is only configured has nothing to say that matters.
struct Nowhere;

impl Sink for Nowhere {
    fn part(&mut self) {}

    fn datagram(&mut self, len: usize, _: &Endpoint, _: Departure, write: impl FnOnce(&mut [u8])) {
        write(&mut vec![0; len]);
    }

    fn packet(&mut self, _: &[u8]) -> Result<(), Drop> {
        Ok(())
    }
}
