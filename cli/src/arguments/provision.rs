//! Flags of `machine init` and `machine add`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ployz_api::Name;
use ployz_install::{Base, PublicKey};

use super::invite::TermsArguments;
use super::service::{Runtime, ServiceMode};
use super::target::Target;

/// WireGuard's UDP port, unless somebody says another.
const WG_PORT_DEFAULT: u16 = 51_820;
/// The management server's.
const MANAGEMENT_PORT: u16 = 51_821;

/// Where programs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum InstallSource {
    /// A release; without --release-base, the very programs that run here
    Release,
    /// A git repository, built on the host
    Git,
}

/// One host.
#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// Where ssh gets to it
    #[arg(value_name = "USER@HOST")]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) provision: ProvisionArguments,
}

/// Several.
#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// Where ssh gets to them
    #[arg(value_name = "USER@HOST", required = true)]
    pub(crate) targets: Vec<Target>,
    #[command(flatten)]
    pub(crate) provision: ProvisionArguments,
}

/// How machines are made of hosts.
#[derive(Debug, Args)]
pub(crate) struct ProvisionArguments {
    /// The network that they are for
    #[arg(long)]
    pub(crate) network: Name,
    /// What runs workloads there
    #[arg(long, value_enum, default_value_t = Runtime::Host)]
    pub(crate) runtime: Runtime,
    /// Who runs the daemon
    #[arg(long, value_enum, default_value_t = ServiceMode::System)]
    pub(crate) service_mode: ServiceMode,
    /// Where the programs come from
    #[arg(long, value_enum, default_value_t = InstallSource::Release)]
    pub(crate) install_source: InstallSource,
    /// Which release
    #[arg(long, value_name = "VERSION", default_value = "latest")]
    pub(crate) install_version: String,
    /// Where releases are: a directory, or an http(s) URL
    #[arg(long, value_name = "BASE", env = "PLOYZ_RELEASE_BASE")]
    pub(crate) release_base: Option<Base>,
    /// Whose signature they have: a minisign public key
    #[arg(long, value_name = "KEY", env = "PLOYZ_RELEASE_KEY")]
    pub(crate) release_key: Option<PublicKey>,
    /// The repository, with --install-source git
    #[arg(long, value_name = "URL")]
    pub(crate) install_git_url: Option<String>,
    /// A branch, a tag or a commit of it
    #[arg(long, value_name = "REF", requires = "install_git_url")]
    pub(crate) install_git_ref: Option<String>,
    /// The secret key for ssh, where it is not the one that ssh takes by itself
    #[arg(long, value_name = "PATH")]
    pub(crate) identity: Option<PathBuf>,
    /// ssh's port there
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ssh_port: Option<u16>,
    #[command(flatten)]
    pub(crate) terms: TermsArguments,
    /// Where others reach the machine's WireGuard; may be said several times, the best first [default: its addresses]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) wg_endpoint: Vec<SocketAddr>,
    /// WireGuard's UDP port there
    #[arg(long, value_name = "PORT", default_value_t = WG_PORT_DEFAULT, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) wg_port: u16,
    /// Accept the keys of hosts that nobody has been to before
    #[arg(long)]
    pub(crate) yes: bool,
}

impl ProvisionArguments {
    /// What the daemon there will listen on, for a script.
    pub(crate) fn udp_ports(&self) -> String {
        format!("{} {MANAGEMENT_PORT}", self.wg_port)
    }

    /// What `daemon install` is told there.
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
