//! Configuration files as `wg setconf` reads them, with `Address` and `MTU` of wg-quick as well.
//!
//! A file describes an interface whole, as with `wg setconf`: what it does not mention is taken away.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ployz_engine::{PeerUpdate, PublicKey, Update};
use tracing::warn;
use zeroize::Zeroizing;

use crate::uapi::parse::MAX_REQUEST;

mod config;
mod error;
mod settings;

pub use config::Config;
pub use error::{ConfigError, LineError, Problem};

/// Reads a file, and resolves host names in it, which may take as long as the resolver does. Warns in the log if all
/// users can read it.
///
/// # Errors
/// [`ConfigError`] with the path, and the line if it is about one.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, resolve).map_err(|error| ConfigError::Line {
        path: path.to_owned(),
        error,
    })
}

/// Reads the text of a file; `resolve` is asked for the address of `host:port` where an endpoint is no address.
///
/// # Errors
/// [`LineError`] for the first line that is wrong.
pub fn parse(
    text: &str,
    resolve: impl Fn(&str, u16) -> io::Result<SocketAddr>,
) -> Result<Config, LineError> {
    let mut reader = Reader::new(resolve);
    for (index, raw) in text.lines().enumerate() {
        reader.line = index + 1;
        let uncommented = raw.split('#').next().unwrap_or_default();
        // Like `wg`, which knows no value that has a space in it. The capacity keeps keys from being moved about.
        let mut line = Zeroizing::new(String::with_capacity(uncommented.len()));
        line.extend(uncommented.chars().filter(|c| !c.is_whitespace()));
        if !line.is_empty() {
            reader.take(&line)?;
        }
    }
    reader.finish()
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.permissions().mode() & 0o007 != 0 {
        warn!(path = %path.display(), "everybody can read the keys in this file: chmod o= {}", path.display());
    }
    let capacity = usize::try_from(metadata.len())
        .unwrap_or(usize::MAX)
        .min(MAX_REQUEST);
    let mut text = Zeroizing::new(String::with_capacity(capacity + 1));
    if file
        .take(MAX_REQUEST as u64 + 1)
        .read_to_string(&mut text)?
        > MAX_REQUEST
    {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("more than {MAX_REQUEST} bytes"),
        ));
    }
    Ok(text)
}

fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    (host, port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address"))
}

struct Reader<R> {
    resolve: R,
    line: usize,
    section: Section,
    config: Config,
}

enum Section {
    None,
    Interface,
    Peer(PeerSection),
}

struct PeerSection {
    /// Of `[Peer]`.
    line: usize,
    public_key: Option<PublicKey>,
    /// Everything but the key.
    settings: PeerUpdate,
}

impl<R: Fn(&str, u16) -> io::Result<SocketAddr>> Reader<R> {
    fn new(resolve: R) -> Self {
        let update = Update {
            private_key: Some(None),
            listen_port: Some(0),
            fwmark: Some(0),
            replace_peers: true,
            peers: Vec::new(),
        };
        let config = Config {
            update,
            ..Config::default()
        };
        Self {
            resolve,
            line: 0,
            section: Section::None,
            config,
        }
    }

    fn take(&mut self, line: &str) -> Result<(), LineError> {
        if let Some(name) = line.strip_prefix('[') {
            return self.begin_section(name.strip_suffix(']').unwrap_or(name));
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(self.error(Problem::NotASetting));
        };
        let set = match &mut self.section {
            Section::None => Err(Problem::NoSection),
            Section::Interface => settings::set_interface(&mut self.config, key, value),
            Section::Peer(peer) => settings::set_peer(
                &mut peer.public_key,
                &mut peer.settings,
                key,
                value,
                &self.resolve,
            ),
        };
        set.map_err(|problem| self.error(problem))
    }

    fn begin_section(&mut self, name: &str) -> Result<(), LineError> {
        self.end_section()?;
        self.section = if name.eq_ignore_ascii_case("Interface") {
            Section::Interface
        } else if name.eq_ignore_ascii_case("Peer") {
            Section::Peer(PeerSection::new(self.line))
        } else {
            return Err(self.error(Problem::UnknownSection(error::shown(name))));
        };
        Ok(())
    }

    fn end_section(&mut self) -> Result<(), LineError> {
        let Section::Peer(peer) = std::mem::replace(&mut self.section, Section::None) else {
            return Ok(());
        };
        let Some(public_key) = peer.public_key else {
            return Err(LineError {
                line: peer.line,
                problem: Problem::NoPublicKey,
            });
        };
        self.config.update.peers.push(PeerUpdate {
            public_key,
            ..peer.settings
        });
        Ok(())
    }

    fn finish(mut self) -> Result<Config, LineError> {
        self.end_section()?;
        Ok(self.config)
    }

    fn error(&self, problem: Problem) -> LineError {
        LineError {
            line: self.line,
            problem,
        }
    }
}

impl PeerSection {
    fn new(line: usize) -> Self {
        let unnamed = PublicKey::from_bytes([0; ployz_engine::KEY_LEN]);
        let settings = PeerUpdate {
            replace_allowed_ips: true,
            ..PeerUpdate::new(unnamed)
        };
        Self {
            line,
            public_key: None,
            settings,
        }
    }
}

#[cfg(test)]
mod tests;
