//! The flags of `ployzctl daemon`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use ployz_api::Name;
use ployz_install::{Base, PublicKey};

#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Install ployzd as a service and start it; run again to change its settings
    Install(Box<InstallArguments>),
    /// Remove the service with its programs, settings and data
    Uninstall {
        /// Remove it even if the machine is in a network
        #[arg(long)]
        force: bool,
    },
    /// Write the systemd units of this version
    Units {
        /// Directory to write them to
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
    },
}

/// The settings of the service.
#[derive(Debug, Args)]
pub(crate) struct InstallArguments {
    /// Runtime for workloads
    #[arg(long, value_enum)]
    pub(crate) runtime: Runtime,
    /// User whose service the daemon is
    #[arg(long, value_enum, default_value_t = ServiceMode::System)]
    pub(crate) service_mode: ServiceMode,
    /// Name of this machine [default: the host's name]
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Region of this machine [default: local]
    #[arg(long)]
    pub(crate) region: Option<Name>,
    /// WireGuard's UDP port [default: 51820]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) wg_port: Option<u16>,
    /// Endpoint at which other machines reach it; repeatable, best first [default: its addresses with that port]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) wg_endpoint: Vec<SocketAddr>,
    /// Address for remote management requests [default: 0.0.0.0:51821]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Directory or URL with the releases
    #[arg(long, value_name = "DIR|URL", env = "PLOYZ_RELEASE_BASE")]
    pub(crate) release_base: Option<Base>,
    /// Minisign public key of the releases: its line of base64
    #[arg(long, value_name = "KEY", env = "PLOYZ_RELEASE_KEY")]
    pub(crate) release_key: Option<PublicKey>,
}

/// The runtime for workloads on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// Docker Engine, or Podman through its socket
    Docker,
    /// Processes of the host
    Host,
}

/// The user whose service the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceMode {
    /// An unprivileged user; not supported yet
    User,
    /// The system
    System,
}

impl Runtime {
    /// The word for the runtime, as flags and settings spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Host => "host",
        }
    }
}
