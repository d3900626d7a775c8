//! The flags of `ployzctl machine init` and `machine add`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ployz_api::Name;
use ployz_install::{Base, PublicKey};

use super::invite::TermsArguments;
use super::service::{Runtime, ServiceMode};
use super::target::Target;
use super::values::{git_reference, git_url};

/// WireGuard's UDP port where no flag gives another.
const WG_PORT_DEFAULT: u16 = 51_820;
/// The management server's.
const MANAGEMENT_PORT: u16 = 51_821;

/// The origin of the programs to install.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InstallSource {
    /// A release; without --release-base, the programs of this machine
    Release,
    /// A git repository, built on the host
    Git,
}

/// The arguments of `machine init`.
#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// Host to connect to with ssh
    #[arg(value_name = "USER@HOST")]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) provision: ProvisionArguments,
}

/// The arguments of `machine add`.
#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// Hosts to connect to with ssh
    #[arg(value_name = "USER@HOST", required = true)]
    pub(crate) targets: Vec<Target>,
    #[command(flatten)]
    pub(crate) provision: ProvisionArguments,
}

/// The flags about turning hosts into machines.
#[derive(Debug, Args)]
pub(crate) struct ProvisionArguments {
    /// Network to join
    #[arg(long)]
    pub(crate) network: Name,
    /// Runtime for workloads
    #[arg(long, value_enum, default_value_t = Runtime::Host)]
    pub(crate) runtime: Runtime,
    /// User whose service the daemon is
    #[arg(long, value_enum, default_value_t = ServiceMode::System)]
    pub(crate) service_mode: ServiceMode,
    /// Origin of the programs
    #[arg(long, value_enum, default_value_t = InstallSource::Release)]
    pub(crate) install_source: InstallSource,
    /// Release to install
    #[arg(long, value_name = "VERSION", default_value = "latest")]
    pub(crate) install_version: String,
    /// Directory or http(s) URL with the releases
    #[arg(long, value_name = "BASE", env = "PLOYZ_RELEASE_BASE")]
    pub(crate) release_base: Option<Base>,
    /// Minisign public key that the releases are signed with
    #[arg(long, value_name = "KEY", env = "PLOYZ_RELEASE_KEY")]
    pub(crate) release_key: Option<PublicKey>,
    /// Repository for --install-source git
    #[arg(long, value_name = "URL", value_parser = git_url)]
    pub(crate) install_git_url: Option<String>,
    /// Branch, tag or commit of the repository
    #[arg(long, value_name = "REF", requires = "install_git_url", value_parser = git_reference)]
    pub(crate) install_git_ref: Option<String>,
    /// Secret key for ssh [default: chosen by ssh]
    #[arg(long, value_name = "PATH")]
    pub(crate) identity: Option<PathBuf>,
    /// ssh's port on the host
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ssh_port: Option<u16>,
    #[command(flatten)]
    pub(crate) terms: TermsArguments,
    /// Endpoint at which other machines reach this one's WireGuard; repeatable, best first [default: its addresses]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) wg_endpoint: Vec<SocketAddr>,
    /// WireGuard's UDP port on the host
    #[arg(long, value_name = "PORT", default_value_t = WG_PORT_DEFAULT, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) wg_port: u16,
    /// Accept unknown host keys
    #[arg(long)]
    pub(crate) yes: bool,
}

impl ProvisionArguments {
    /// The UDP ports of the daemon, as the preflight script takes them.
    pub(crate) fn udp_ports(&self) -> String {
        format!("{} {MANAGEMENT_PORT}", self.wg_port)
    }

    /// The flags for `daemon install` on the host.
    pub(crate) fn daemon_flags(&self) -> Vec<String> {
        let mut flags = vec![
            "--runtime".to_owned(),
            self.runtime.name().to_owned(),
            "--service-mode".to_owned(),
            "system".to_owned(),
            "--wg-port".to_owned(),
            self.wg_port.to_string(),
        ];
        let optional = [
            ("--name", self.terms.name.as_ref().map(Name::to_string)),
            ("--region", self.terms.region.as_ref().map(Name::to_string)),
            (
                "--release-base",
                self.release_base.as_ref().map(Base::to_string),
            ),
            (
                "--release-key",
                self.release_key.as_ref().map(PublicKey::to_string),
            ),
        ];
        for (flag, value) in optional {
            flags.extend(
                value
                    .map(|value| [flag.to_owned(), value])
                    .into_iter()
                    .flatten(),
            );
        }
        for endpoint in &self.wg_endpoint {
            flags.extend(["--wg-endpoint".to_owned(), endpoint.to_string()]);
        }
        flags
    }
}
