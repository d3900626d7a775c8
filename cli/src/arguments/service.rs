//! Flags of the daemon as a service.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use ployz_api::Name;
use ployz_install::{Base, PublicKey};

#[derive(Debug, Subcommand)]
pub(crate) enum DaemonCommand {
    /// Make ployzd a service of this machine that runs from now on; again, to change how
    Install(Box<InstallArguments>),
    /// Take the service away with everything that belongs to it: programs, settings, data
    Uninstall {
        /// Although the machine is in a network
        #[arg(long)]
        force: bool,
    },
    /// Write the units that this version is run by
    Units {
        /// Into this directory
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
    },
}

/// How the daemon is to be run.
#[derive(Debug, Args)]
pub(crate) struct InstallArguments {
    /// What runs workloads here
    #[arg(long, value_enum)]
    pub(crate) runtime: Runtime,
    /// Whose service it is
    #[arg(long, value_enum, default_value_t = ServiceMode::System)]
    pub(crate) service_mode: ServiceMode,
    /// What to call this machine [default: the host's name]
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// The region it is in [default: local]
    #[arg(long)]
    pub(crate) region: Option<Name>,
    /// WireGuard's UDP port [default: 51820]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) wg_port: Option<u16>,
    /// Where other machines reach it; may be said several times, the best first [default: its addresses with that port]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) wg_endpoint: Vec<SocketAddr>,
    /// Where management requests from afar are taken [default: 0.0.0.0:51821]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where later versions come from
    #[arg(long, value_name = "DIR|URL", env = "PLOYZ_RELEASE_BASE")]
    pub(crate) release_base: Option<Base>,
    /// The public key that they are signed with: minisign's line of base64
    #[arg(long, value_name = "KEY", env = "PLOYZ_RELEASE_KEY")]
    pub(crate) release_key: Option<PublicKey>,
}

/// What runs workloads on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// Docker Engine, or Podman through its socket
    Docker,
    /// Processes of the host
    Host,
}

/// Whose service a daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceMode {
    /// An ordinary user's, without privileges; not possible yet
    User,
    /// The system's
    System,
}

impl Runtime {
    /// The word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Host => "host",
        }
    }
}
