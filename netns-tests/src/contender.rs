//! The implementations of WireGuard that a story can be told with.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::command::words;

/// How many threads `ployzd` spreads its peers over.
pub const SHARDS: &str = "--shards";

/// How `ployzd` talks to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    IoUring,
    Epoll,
}

impl Backend {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    Ployzd(Backend),
    WireguardGo,
    Boringtun,
    Gotatun,
}

impl Contender {
    /// `ployzd`, unless `PLOYZ_UNDER_TEST` names another.
    pub fn under_test(backend: Backend) -> Result<Self> {
        Ok(match env::var("PLOYZ_UNDER_TEST").as_deref() {
            Err(_) | Ok("" | "ployzd") => Self::Ployzd(backend),
            Ok("wireguard-go") => Self::WireguardGo,
            Ok("boringtun") => Self::Boringtun,
            Ok("gotatun") => Self::Gotatun,
            Ok(other) => bail!("PLOYZ_UNDER_TEST={other}: no such contender"),
        })
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ployzd(Backend::IoUring) => "ployzd(io_uring)",
            Self::Ployzd(Backend::Epoll) => "ployzd(epoll)",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
        }
    }

    /// Ours: held to everything that the stories say, where others are known to fall short.
    #[must_use]
    pub fn is_ployzd(self) -> bool {
        matches!(self, Self::Ployzd(_))
    }

    /// The command that runs the daemon in the foreground on `interface`.
    #[must_use]
    pub fn argv(self, interface: &str, extra: &[String]) -> Vec<String> {
        let mut argv = match self {
            Self::Ployzd(backend) => vec![
                ployzd().display().to_string(),
                "dataplane".into(),
                interface.into(),
                "--io-backend".into(),
                backend.name().into(),
            ],
            Self::WireguardGo => words(&format!("wireguard-go -f {interface}")),
            // A socket that is connected to its peer does not outlive the address that it is bound to.
            Self::Boringtun => words(&format!(
                "boringtun-cli -f --disable-drop-privileges --disable-connected-udp {interface}"
            )),
            Self::Gotatun => words(&format!("gotatun -f --disable-drop-privileges {interface}")),
        };
        argv.extend_from_slice(extra);
        if self.is_ployzd() && !extra.iter().any(|flag| flag == SHARDS) {
            let shards = env::var("PLOYZ_SHARDS").into_iter();
            argv.extend(shards.flat_map(|shards| [SHARDS.into(), shards]));
        }
        argv
    }

    /// The environment that makes the daemon speak up when something goes wrong.
    #[must_use]
    pub fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Ployzd(_) => &[("RUST_BACKTRACE", "1")],
            Self::WireguardGo => &[("LOG_LEVEL", "error"), ("WG_PROCESS_FOREGROUND", "1")],
            Self::Boringtun | Self::Gotatun => &[("WG_LOG_LEVEL", "info")],
        }
    }
}

/// The release build of this workspace, or what `PLOYZD` names.
#[must_use]
pub fn ployzd() -> PathBuf {
    if let Some(path) = env::var_os("PLOYZD") {
        return path.into();
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    );
    target.join("release/ployzd")
}
