//! Requests of the userspace protocol, line by line.
//!
//! A request is an operation, lines of `key=value` and an empty line. [`RequestParser`] collects it without holding its
//! text: give it each line to [`RequestParser::line`], which answers at the empty one. The first mistake decides the
//! answer and lets go of what was collected; the lines after it are passed over, so that the next request begins where
//! it should.

use ipnet::IpNet;
use nix::errno::Errno;
use ployz_engine::{
    AllowedIpChange, MAX_PEERS, PeerUpdate, PresharedKey, PrivateKey, PublicKey, Update,
};

use super::literal;
use super::operation::Operation;

/// Bytes in one request, its line ends included.
///
/// As many peers as an engine holds, each with its keys, an IPv6 endpoint and three prefixes, are 65,536 * 480 bytes;
/// 130,000 IPv6 prefixes of a single peer are 130,000 * 56 bytes = 7 MiB. The text itself is not kept; what is kept
/// takes at most twice its size (a peer with nothing but its key: 136 bytes for 76), and as much again while a vector
/// grows.
pub const MAX_REQUEST: usize = 32 << 20;
const _: () = assert!(MAX_PEERS * 480 <= MAX_REQUEST);
const _: () = assert!(130_000 * 56 <= MAX_REQUEST);

/// Bytes in one line without its end. The longest that means anything are the keys, with 78.
pub const MAX_LINE: usize = 512;

/// A complete request.
#[derive(Debug)]
pub enum Request {
    /// Show the interface.
    Get,
    /// Change the interface.
    Set(Update),
    /// Show what only we know.
    Status,
    /// Test the way to every peer so many times.
    Measure(u16),
}

impl Request {
    /// The operation that is asked for.
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Get => Operation::Get,
            Self::Set(_) => Operation::Set,
            Self::Status => Operation::Status,
            Self::Measure(count) => Operation::Measure(*count),
        }
    }
}

/// A request that is answered with an error, because of its first mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {mistake}")]
pub struct ParseError {
    /// The operation, if that much was clear.
    pub operation: Option<Operation>,
    /// Counted from 1.
    pub line: usize,
    /// The fault there.
    pub mistake: Mistake,
}

/// The fault of a line. Values are not repeated: they may be secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// The first line of a request.
    #[error("the operations are get=1, set=1, status=1 and measure=1 to measure=65535")]
    UnknownOperation,
    /// Lines after anything but `set=1`.
    #[error("this operation takes no keys; an empty line ends it")]
    UnexpectedKey,
    /// No `=`, or not UTF-8.
    #[error("expected key=value")]
    NotKeyValue,
    /// Before the first `public_key`.
    #[error("an interface has no key {0}; keys of a peer follow its public_key")]
    UnknownInterfaceKey(String),
    /// After a `public_key`.
    #[error("a peer has no key {0}; keys of the interface precede the first public_key")]
    UnknownPeerKey(String),
    /// A known key with a value that it cannot have.
    #[error("{key} is {expected}")]
    InvalidValue {
        /// The key.
        key: &'static str,
        /// The values that it can have.
        expected: &'static str,
    },
    /// More than [`MAX_LINE`].
    #[error("a line has at most {MAX_LINE} bytes")]
    LineTooLong,
    /// More than [`MAX_REQUEST`].
    #[error("a request has at most {MAX_REQUEST} bytes; split it")]
    RequestTooLong,
    /// The input ends before the empty line.
    #[error("the request does not end in an empty line")]
    Unfinished,
}

impl Mistake {
    /// The error that `wg` shows for it.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::UnknownOperation
            | Self::UnexpectedKey
            | Self::UnknownInterfaceKey(_)
            | Self::UnknownPeerKey(_)
            | Self::InvalidValue { .. } => Errno::EINVAL,
            Self::NotKeyValue | Self::LineTooLong | Self::Unfinished => Errno::EPROTO,
            Self::RequestTooLong => Errno::EMSGSIZE,
        }
    }
}

/// Reads the first request in `text`; what follows it is not looked at.
///
/// `scope_of` is the index of an interface by name, for endpoints such as `[fe80::1%eth0]:51820`.
///
/// # Errors
/// [`ParseError`] with the first mistake.
pub fn parse(text: &[u8], scope_of: impl Fn(&str) -> Option<u32>) -> Result<Request, ParseError> {
    let mut parser = RequestParser::new(scope_of);
    let mut rest = text;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        if let Some(request) = parser.line(&rest[..end]) {
            return request;
        }
        rest = &rest[end + 1..];
    }
    Err(parser
        .progress
        .error
        .take()
        .unwrap_or_else(|| parser.error(Mistake::Unfinished)))
}

/// Collects requests from lines. See the module for how to drive it.
#[derive(Debug)]
pub struct RequestParser<F> {
    scope_of: F,
    progress: Progress,
}

/// A request, as far as it was read. Lines belong to the last peer of `update`, and to the interface before there is
/// one.
#[derive(Debug, Default)]
struct Progress {
    operation: Option<Operation>,
    lines: usize,
    bytes: usize,
    update: Update,
    error: Option<ParseError>,
}

impl<F: Fn(&str) -> Option<u32>> RequestParser<F> {
    /// A parser that expects a request; `scope_of` as in [`parse`].
    pub fn new(scope_of: F) -> Self {
        Self {
            scope_of,
            progress: Progress::default(),
        }
    }

    /// Takes a line without its end, and gives the request that it completes. Empty lines between requests are nothing.
    pub fn line(&mut self, line: &[u8]) -> Option<Result<Request, ParseError>> {
        if line.is_empty() {
            return self.finish();
        }
        let progress = &mut self.progress;
        progress.lines += 1;
        progress.bytes = progress.bytes.saturating_add(line.len() + 1);
        if progress.error.is_none()
            && let Err(mistake) = self.accept(line)
        {
            self.progress.error = Some(self.error(mistake));
            self.progress.update = Update::default();
        }
        None
    }

    fn finish(&mut self) -> Option<Result<Request, ParseError>> {
        let progress = std::mem::take(&mut self.progress);
        if let Some(error) = progress.error {
            return Some(Err(error));
        }
        Some(Ok(match progress.operation? {
            Operation::Get => Request::Get,
            Operation::Set => Request::Set(progress.update),
            Operation::Status => Request::Status,
            Operation::Measure(count) => Request::Measure(count),
        }))
    }

    fn accept(&mut self, line: &[u8]) -> Result<(), Mistake> {
        if line.len() > MAX_LINE {
            return Err(Mistake::LineTooLong);
        }
        if self.progress.bytes > MAX_REQUEST {
            return Err(Mistake::RequestTooLong);
        }
        let line = std::str::from_utf8(line).map_err(|_| Mistake::NotKeyValue)?;
        let (key, value) = line.split_once('=').ok_or(Mistake::NotKeyValue)?;
        match self.progress.operation {
            None => self.progress.operation = Some(operation(key, value)?),
            Some(Operation::Get | Operation::Status | Operation::Measure(_)) => {
                return Err(Mistake::UnexpectedKey);
            }
            Some(Operation::Set) => self.set(key, value)?,
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Mistake> {
        let update = &mut self.progress.update;
        if key == "public_key" {
            let public_key =
                PublicKey::from_hex(value).map_err(|_| invalid("public_key", HEX_KEY))?;
            update.peers.push(PeerUpdate::new(public_key));
            return Ok(());
        }
        match update.peers.last_mut() {
            None => set_interface(update, key, value),
            Some(peer) => set_peer(peer, key, value, &self.scope_of),
        }
    }

    fn error(&self, mistake: Mistake) -> ParseError {
        ParseError {
            operation: self.progress.operation,
            line: self.progress.lines,
            mistake,
        }
    }
}

fn operation(key: &str, value: &str) -> Result<Operation, Mistake> {
    match (key, value) {
        ("get", "1") => Ok(Operation::Get),
        ("set", "1") => Ok(Operation::Set),
        ("status", "1") => Ok(Operation::Status),
        ("measure", count) => match count.parse() {
            Ok(count @ 1..) => Ok(Operation::Measure(count)),
            Ok(0) | Err(_) => Err(Mistake::UnknownOperation),
        },
        _ => Err(Mistake::UnknownOperation),
    }
}

fn set_interface(update: &mut Update, key: &str, value: &str) -> Result<(), Mistake> {
    match key {
        "private_key" => {
            let private_key =
                PrivateKey::from_hex(value).map_err(|_| invalid("private_key", HEX_KEY))?;
            update.private_key = Some(private_key);
        }
        "listen_port" => {
            update.listen_port =
                Some(literal::decimal(value).ok_or_else(|| invalid("listen_port", U16))?);
        }
        "fwmark" => {
            update.fwmark = Some(literal::decimal(value).ok_or_else(|| invalid("fwmark", U32))?)
        }
        "replace_peers" => update.replace_peers = truth("replace_peers", value)?,
        _ => return Err(Mistake::UnknownInterfaceKey(shown(key))),
    }
    Ok(())
}

fn set_peer(
    peer: &mut PeerUpdate,
    key: &str,
    value: &str,
    scope_of: impl Fn(&str) -> Option<u32>,
) -> Result<(), Mistake> {
    match key {
        "remove" => peer.remove = truth("remove", value)?,
        "update_only" => peer.update_only = truth("update_only", value)?,
        "preshared_key" => {
            let preshared_key =
                PresharedKey::from_hex(value).map_err(|_| invalid("preshared_key", HEX_KEY))?;
            peer.preshared_key = Some(preshared_key);
        }
        "endpoint" => {
            let endpoint =
                literal::endpoint(value, scope_of).ok_or_else(|| invalid("endpoint", ENDPOINT))?;
            peer.endpoint = Some(endpoint);
        }
        "persistent_keepalive_interval" => {
            let secs = literal::decimal(value)
                .ok_or_else(|| invalid("persistent_keepalive_interval", U16))?;
            peer.persistent_keepalive_secs = Some(secs);
        }
        "replace_allowed_ips" => {
            peer.replace_allowed_ips = truth("replace_allowed_ips", value)?;
            // It is the list that follows which replaces the others.
            peer.allowed_ips.clear();
        }
        "allowed_ip" => {
            peer.allowed_ips
                .push(allowed_ip(value).ok_or_else(|| invalid("allowed_ip", PREFIX))?);
        }
        "protocol_version" if value == "1" => {}
        "protocol_version" => return Err(invalid("protocol_version", "1")),
        _ => return Err(Mistake::UnknownPeerKey(shown(key))),
    }
    Ok(())
}

const HEX_KEY: &str = "64 hexadecimal digits";
const U16: &str = "a decimal number from 0 to 65535";
const U32: &str = "a decimal number from 0 to 4294967295";
const ENDPOINT: &str = "address:port or [address]:port";
const PREFIX: &str = "address/length, after a - to take it away";

/// Prefixes are kept without the bits behind their length, as all implementations do.
fn allowed_ip(value: &str) -> Option<AllowedIpChange> {
    let prefix = |text| literal::prefix(text).map(|net: IpNet| net.trunc());
    match value.strip_prefix('-') {
        Some(removed) => prefix(removed).map(AllowedIpChange::Remove),
        None => prefix(value.strip_prefix('+').unwrap_or(value)).map(AllowedIpChange::Add),
    }
}

/// There is no way to say `false`: the key is left out.
fn truth(key: &'static str, value: &str) -> Result<bool, Mistake> {
    if value == "true" {
        Ok(true)
    } else {
        Err(invalid(key, "true, or left out"))
    }
}

const fn invalid(key: &'static str, expected: &'static str) -> Mistake {
    Mistake::InvalidValue { key, expected }
}

/// A key as it can be shown in a log: it may be anything.
fn shown(key: &str) -> String {
    key.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
