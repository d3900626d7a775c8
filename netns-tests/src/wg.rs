//! The stock `wg` tool, typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Netns;
use crate::command::{Finished, PATIENCE, run, words};
use crate::stage::Stage;

/// A key pair, with the private half in a file as `wg set` wants it.
#[derive(Debug, Clone)]
pub struct Keys {
    pub private: String,
    pub public: String,
    pub file: PathBuf,
}

impl Keys {
    pub fn generate(stage: &Stage) -> Result<Self> {
        let private = tool("wg genkey", "")?;
        let public = tool("wg pubkey", &private)?;
        let file = stage.file("private-key", &private)?;
        Ok(Self {
            private,
            public,
            file,
        })
    }

    /// The file's path, for a `wg set` line.
    #[must_use]
    pub fn path(&self) -> String {
        self.file.display().to_string()
    }
}

/// The path of a file with a fresh preshared key.
pub fn preshared_key(stage: &Stage) -> Result<String> {
    Ok(stage
        .file("preshared-key", &tool("wg genpsk", "")?)?
        .display()
        .to_string())
}

/// `wg`'s base64 as the hexadecimal of the userspace protocol.
pub fn hex(key: &str) -> Result<String> {
    Ok(hex::encode(STANDARD.decode(key)?))
}

/// The 32 bytes of a key.
pub fn bytes(key: &str) -> Result<[u8; 32]> {
    STANDARD
        .decode(key)?
        .try_into()
        .ok()
        .context("a key has 32 bytes")
}

/// 32 bytes as `wg` writes a key.
#[must_use]
pub fn base64(key: &[u8; 32]) -> String {
    STANDARD.encode(key)
}

fn tool(line: &str, input: &str) -> Result<String> {
    let finished = run(&words(line), input.as_bytes(), PATIENCE)?.success()?;
    Ok(finished.stdout.trim().to_owned())
}

/// One interface, driven from inside its namespace as an operator would.
#[derive(Debug)]
pub struct Wg<'a> {
    netns: &'a Netns,
    interface: &'a str,
}

impl<'a> Wg<'a> {
    #[must_use]
    pub fn new(netns: &'a Netns, interface: &'a str) -> Self {
        Self { netns, interface }
    }

    /// `wg set <interface> <line>`, which has to succeed without a word.
    pub fn set(&self, line: &str) -> Result<()> {
        self.try_set(line)?.success().map(drop)
    }

    pub fn try_set(&self, line: &str) -> Result<Finished> {
        self.netns
            .attempt(&format!("wg set {} {line}", self.interface))
    }

    /// `wg setconf`, `syncconf` or `addconf` with a configuration given as text.
    pub fn configure(&self, verb: &str, configuration: &str) -> Result<Finished> {
        let line = format!("wg {verb} {} /dev/stdin", self.interface);
        self.netns
            .attempt_within(&line, configuration.as_bytes(), PATIENCE)
    }

    /// `wg show <interface> <what>`.
    pub fn show(&self, what: &str) -> Result<String> {
        Ok(self
            .netns
            .run(&format!("wg show {} {what}", self.interface))?
            .stdout)
    }

    pub fn showconf(&self) -> Result<String> {
        Ok(self
            .netns
            .run(&format!("wg showconf {}", self.interface))?
            .stdout)
    }

    pub fn dump(&self) -> Result<Device> {
        Device::parse(&self.show("dump")?)
    }

    /// The state of one peer.
    pub fn peer(&self, public_key: &str) -> Result<Peer> {
        let device = self.dump()?;
        let peer = device
            .peers
            .into_iter()
            .find(|peer| peer.public_key == public_key);
        peer.with_context(|| format!("no peer {public_key}"))
    }
}

/// `wg show dump`, first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub private_key: Option<String>,
    pub public_key: Option<String>,
    pub listen_port: u16,
    pub fwmark: u32,
    pub peers: Vec<Peer>,
}

/// `wg show dump`, one of the other lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub public_key: String,
    pub preshared_key: Option<String>,
    pub endpoint: Option<SocketAddr>,
    pub allowed_ips: Vec<String>,
    /// Seconds since the epoch, 0 for never.
    pub latest_handshake: u64,
    pub received: u64,
    pub sent: u64,
    /// Seconds, 0 for off.
    pub persistent_keepalive: u16,
}

impl Device {
    fn parse(dump: &str) -> Result<Self> {
        let mut lines = dump.lines();
        let first: Vec<&str> = lines.next().context("an empty dump")?.split('\t').collect();
        let &[private_key, public_key, listen_port, fwmark] = first.as_slice() else {
            anyhow::bail!("odd first line of a dump: {first:?}");
        };
        Ok(Self {
            private_key: given(private_key),
            public_key: given(public_key),
            listen_port: listen_port.parse()?,
            fwmark: parse_fwmark(fwmark)?,
            peers: lines.map(Peer::parse).collect::<Result<_>>()?,
        })
    }
}

impl Peer {
    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[
            public_key,
            psk,
            endpoint,
            allowed_ips,
            handshake,
            received,
            sent,
            keepalive,
        ] = fields.as_slice()
        else {
            anyhow::bail!("odd peer line of a dump: {line:?}");
        };
        Ok(Self {
            public_key: public_key.to_owned(),
            preshared_key: given(psk),
            endpoint: given(endpoint).map(|it| it.parse()).transpose()?,
            allowed_ips: given(allowed_ips)
                .map(|it| it.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            latest_handshake: handshake.parse()?,
            received: received.parse()?,
            sent: sent.parse()?,
            persistent_keepalive: if keepalive == "off" {
                0
            } else {
                keepalive.parse()?
            },
        })
    }
}

fn given(field: &str) -> Option<String> {
    (field != "(none)").then(|| field.to_owned())
}

fn parse_fwmark(field: &str) -> Result<u32> {
    match field.strip_prefix("0x") {
        Some(hexadecimal) => Ok(u32::from_str_radix(hexadecimal, 16)?),
        None if field == "off" => Ok(0),
        None => Ok(field.parse()?),
    }
}
