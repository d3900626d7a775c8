//! The settings of `ployzd run`: flags override the environment, which overrides the file. They are parsed once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args as _, ValueEnum};
use ployz_api::{Failure, Name};
use ployz_dataplane::BackendChoice;
use ployz_install::Base;
use serde::Deserialize;

use crate::host::error::HostError;
use crate::host::logging::LogFormat;

const ENVIRONMENT_PREFIX: &str = "PLOYZD_";

/// The default of `wg-quick` and the kernel: 1500 less the longest outer headers (IPv6 40, UDP 8, WireGuard 32).
pub(crate) const MTU_DEFAULT: u32 = 1420;

/// For clap.
pub(crate) const SHARDS_MAX: i64 = ployz_engine::SHARDS_MAX as i64;

/// The command line of `ployzd run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A TOML file with the same settings, their dashes as underscores.
    #[arg(long, env = "PLOYZD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// The settings of one source; those that it leaves out are none.
#[derive(Debug, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Where everything is kept [default: /var/lib/ployz]
    #[arg(long, env = "PLOYZD_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What to call this machine [default: the host's name]
    #[arg(long, env = "PLOYZD_NAME")]
    name: Option<Name>,
    /// The region it is in [default: local]
    #[arg(long, env = "PLOYZD_REGION")]
    region: Option<Name>,
    /// The overlay's interface [default: ployz0]
    #[arg(long, env = "PLOYZD_INTERFACE", value_name = "NAME")]
    interface: Option<String>,
    /// How to talk to the kernel [default: auto, which takes io_uring where it is allowed]
    #[arg(long, env = "PLOYZD_IO_BACKEND", value_enum)]
    io_backend: Option<BackendArgument>,
    /// Threads to spread the peers over [default: 1]
    #[arg(long, env = "PLOYZD_SHARDS", value_parser = clap::value_parser!(u8).range(1..=SHARDS_MAX))]
    shards: Option<u8>,
    /// MTU of the interface in bytes [default: 1420]
    #[arg(long, env = "PLOYZD_MTU", value_parser = clap::value_parser!(u32).range(1280..=65_535))]
    mtu: Option<u32>,
    /// WireGuard's UDP port [default: 51820]
    #[arg(long, env = "PLOYZD_WG_PORT", value_name = "PORT")]
    wg_port: Option<u16>,
    /// Where other machines reach it [default: the host's addresses with that port]
    #[arg(
        long,
        env = "PLOYZD_WG_ENDPOINT",
        value_name = "ADDR:PORT",
        value_delimiter = ','
    )]
    #[serde(default)]
    wg_endpoint: Vec<SocketAddr>,
    /// Where management requests from afar are taken, over QUIC [default: 0.0.0.0:51821]
    #[arg(long, env = "PLOYZD_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// The nats-server to run where the store is [default: nats-server beside ployzd]
    #[arg(long, env = "PLOYZD_NATS_SERVER", value_name = "FILE")]
    nats_server: Option<PathBuf>,
    /// The systemd unit that runs it [default: none, it is a process of ployzd's that outlives it]
    #[arg(long, env = "PLOYZD_NATS_UNIT", value_name = "UNIT")]
    nats_unit: Option<String>,
    /// The store's port in the overlay [default: 4222]
    #[arg(long, env = "PLOYZD_NATS_PORT", value_name = "PORT")]
    nats_port: Option<u16>,
    /// Where to answer Prometheus (GET /metrics); nowhere by default
    #[arg(long, env = "PLOYZD_METRICS_LISTEN", value_name = "ADDR:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// What runs workloads here [default: docker]
    #[arg(long, env = "PLOYZD_RUNTIME", value_enum)]
    runtime: Option<Runtime>,
    /// Where the container engine answers [default: /run/docker.sock, or Podman's if there is only that]
    #[arg(long, env = "PLOYZD_DOCKER_SOCKET", value_name = "FILE")]
    docker_socket: Option<PathBuf>,
    /// Whose service the daemon is [default: system]
    #[arg(long, env = "PLOYZD_SERVICE_MODE", value_enum)]
    service_mode: Option<ServiceMode>,
    /// Where later versions come from: a directory or a URL, as `scripts/release` fills it [default: nowhere]
    #[arg(long, env = "PLOYZD_RELEASE_BASE", value_name = "DIR|URL")]
    release_base: Option<String>,
    /// How to log [default: auto, which is journald where stderr leads to it, and text elsewhere]
    #[arg(long, env = "PLOYZD_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

/// The I/O backend, as an operator names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BackendArgument {
    /// io_uring where it is allowed.
    #[default]
    Auto,
    /// io_uring, or fail.
    #[value(name = "io_uring")]
    IoUring,
    /// epoll.
    Epoll,
}

impl From<BackendArgument> for BackendChoice {
    fn from(argument: BackendArgument) -> Self {
        match argument {
            BackendArgument::Auto => Self::Auto,
            BackendArgument::IoUring => Self::IoUring,
            BackendArgument::Epoll => Self::Epoll,
        }
    }
}

/// The runtime of a machine's workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Runtime {
    /// Docker Engine, or Podman through its socket.
    Docker,
    /// Processes of the host.
    Host,
}

impl Runtime {
    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Host => "host",
        }
    }
}

/// The user that a daemon is a service of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServiceMode {
    /// An ordinary user's, without privileges.
    User,
    /// The system's.
    System,
}

impl ServiceMode {
    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::System => "system",
        }
    }
}

/// The complete settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) name: Name,
    pub(crate) region: Name,
    pub(crate) interface: String,
    pub(crate) mtu: u32,
    pub(crate) wg_port: u16,
    pub(crate) wg_endpoint: Vec<SocketAddr>,
    pub(crate) listen: SocketAddr,
    pub(crate) nats_server: PathBuf,
    pub(crate) nats_unit: Option<String>,
    pub(crate) nats_port: u16,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) io_backend: BackendArgument,
    pub(crate) shards: u8,
    pub(crate) runtime: Runtime,
    pub(crate) docker_socket: PathBuf,
    pub(crate) service_mode: ServiceMode,
    pub(crate) release_base: Option<Base>,
    pub(crate) log_format: LogFormat,
}

impl Config {
    /// Reads the file, if there is one, and adds the defaults.
    pub(crate) fn load(arguments: Arguments) -> Result<Self, HostError> {
        refuse_unknown(std::env::vars_os().map(|(key, _)| key.to_string_lossy().into_owned()))?;
        let file = match &arguments.config {
            Some(path) => read(path)?,
            None => Settings::default(),
        };
        arguments.settings.or(file).complete()
    }
}

impl Settings {
    fn or(self, other: Self) -> Self {
        let wg_endpoint = if self.wg_endpoint.is_empty() {
            other.wg_endpoint
        } else {
            self.wg_endpoint
        };
        Self {
            data_dir: self.data_dir.or(other.data_dir),
            name: self.name.or(other.name),
            region: self.region.or(other.region),
            interface: self.interface.or(other.interface),
            mtu: self.mtu.or(other.mtu),
            wg_port: self.wg_port.or(other.wg_port),
            wg_endpoint,
            listen: self.listen.or(other.listen),
            nats_server: self.nats_server.or(other.nats_server),
            nats_unit: self.nats_unit.or(other.nats_unit),
            nats_port: self.nats_port.or(other.nats_port),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            io_backend: self.io_backend.or(other.io_backend),
            shards: self.shards.or(other.shards),
            runtime: self.runtime.or(other.runtime),
            docker_socket: self.docker_socket.or(other.docker_socket),
            service_mode: self.service_mode.or(other.service_mode),
            release_base: self.release_base.or(other.release_base),
            log_format: self.log_format.or(other.log_format),
        }
    }

    fn complete(self) -> Result<Config, HostError> {
        let mtu = self.mtu.unwrap_or(MTU_DEFAULT);
        if !(1280..=65_535).contains(&mtu) {
            let rule = "it must be between 1280, the minimum of IPv6, and 65535";
            return Err(refused("mtu", mtu, rule));
        }
        let shards = self.shards.unwrap_or(1);
        if !(1..=SHARDS_MAX).contains(&i64::from(shards)) {
            let rule = format!("it must be between 1 and {SHARDS_MAX}");
            return Err(refused("shards", shards, rule));
        }
        let service_mode = self.service_mode.unwrap_or(ServiceMode::System);
        if service_mode == ServiceMode::User {
            return Err(HostError::UserService);
        }
        Ok(Config {
            data_dir: self.data_dir.unwrap_or_else(|| "/var/lib/ployz".into()),
            name: self.name.map_or_else(host_name, Ok)?,
            region: self.region.unwrap_or_else(|| Name::nearest("local")),
            interface: self.interface.unwrap_or_else(|| "ployz0".to_owned()),
            mtu,
            wg_port: self.wg_port.unwrap_or(51_820),
            wg_endpoint: self.wg_endpoint,
            listen: self.listen.unwrap_or_else(|| ([0, 0, 0, 0], 51_821).into()),
            nats_server: self.nats_server.map_or_else(beside_ourselves, Ok)?,
            nats_unit: self.nats_unit,
            nats_port: self.nats_port.unwrap_or(4_222),
            metrics_listen: self.metrics_listen,
            io_backend: self.io_backend.unwrap_or_default(),
            shards,
            runtime: self.runtime.unwrap_or(Runtime::Docker),
            docker_socket: self.docker_socket.unwrap_or_else(engine_socket),
            service_mode,
            release_base: self.release_base.as_deref().map(base).transpose()?,
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

fn read(path: &Path) -> Result<Settings, HostError> {
    let text = std::fs::read_to_string(path).map_err(HostError::file("read", path))?;
    toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        HostError::ConfigFile {
            path: path.to_owned(),
            line: before.unwrap_or_default().matches('\n').count() + 1,
            cause: error.message().replace('\n', " "),
        }
    })
}

fn base(text: &str) -> Result<Base, HostError> {
    text.parse().map_err(|failure: Failure| {
        let rule = failure.hint.unwrap_or(failure.message);
        refused("release_base", text, rule)
    })
}

fn refused(setting: &'static str, value: impl ToString, rule: impl Into<String>) -> HostError {
    HostError::Setting {
        setting,
        value: value.to_string(),
        rule: rule.into(),
    }
}

fn host_name() -> Result<Name, HostError> {
    let name = nix::unistd::gethostname().map_err(HostError::HostName)?;
    Ok(Name::nearest(&name.to_string_lossy()))
}

/// Docker's, unless only Podman is there.
fn engine_socket() -> PathBuf {
    let podman = Path::new("/run/podman/podman.sock");
    let docker = Path::new("/run/docker.sock");
    let is_podman = !docker.exists() && podman.exists();
    if is_podman { podman } else { docker }.to_owned()
}

/// Beside this program, never from PATH: the installation decides which version runs, not the environment.
fn beside_ourselves() -> Result<PathBuf, HostError> {
    let link = Path::new("/proc/self/exe");
    let ourselves = std::env::current_exe().map_err(HostError::file("read", link))?;
    Ok(ourselves.with_file_name("nats-server"))
}

/// A setting that is misspelt must not be ignored.
fn refuse_unknown(keys: impl Iterator<Item = String>) -> Result<(), HostError> {
    let command = Arguments::augment_args(clap::Command::new("run"));
    let known: Vec<String> = command
        .get_arguments()
        .filter_map(|argument| Some(argument.get_env()?.to_string_lossy().into_owned()))
        .collect();
    let unknown: Vec<String> = keys
        .filter(|key| key.starts_with(ENVIRONMENT_PREFIX) && !known.contains(key))
        .collect();
    if !unknown.is_empty() {
        return Err(HostError::UnknownSettings {
            unknown: unknown.join(", "),
            known: known.join(", "),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = settings("wg_prot = 1").unwrap_err().to_string();
        assert!(error.contains("wg_prot"), "{error}");
        let environment = ["PLOYZD_NAME", "PLOYZD_WG_PROT", "PLOYZ_LOG", "PATH"];
        let error = refuse_unknown(environment.map(str::to_owned).into_iter()).unwrap_err();
        assert!(
            error.to_string().contains("PLOYZD_WG_PROT, which"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_line_of_the_file_is_numbered() {
        let name = format!("ployz-config-{}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, "mtu = 1400\n\nwg_prot = 1\n").unwrap();
        let error = read(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains(".toml, line 3: "), "{error}");
        assert!(
            error.contains("wg_prot") && !error.contains('\n'),
            "{error}"
        );
    }

    #[test]
    fn what_is_said_first_counts_and_the_rest_is_filled_in() {
        let flags = settings("name = \"a\"\nwg_port = 1").unwrap();
        let file =
            settings("name = \"b\"\nnats_port = 2\nwg_endpoint = [\"192.0.2.1:3\"]").unwrap();
        let config = flags.or(file).complete().unwrap();
        assert_eq!(config.name.as_str(), "a");
        assert_eq!((config.wg_port, config.nats_port), (1, 2));
        assert_eq!(config.wg_endpoint.len(), 1);
        assert_eq!(config.interface, "ployz0");
    }

    #[test]
    fn every_setting_can_be_in_the_file() {
        let text = r#"
            data_dir = "/d"
            name = "a"
            region = "eu"
            interface = "i"
            io_backend = "io_uring"
            shards = 2
            mtu = 1300
            wg_port = 1
            wg_endpoint = ["192.0.2.1:1"]
            listen = "192.0.2.1:2"
            nats_server = "/n"
            nats_unit = "n.service"
            nats_port = 3
            metrics_listen = "192.0.2.1:4"
            runtime = "host"
            docker_socket = "/run/d"
            service_mode = "system"
            release_base = "https://example.org/ployz"
            log_format = "json"
        "#;
        let command = Arguments::augment_args(clap::Command::new("run"));
        let flags = command
            .get_arguments()
            .filter(|flag| flag.get_id() != "config");
        assert_eq!(flags.count(), text.matches('=').count());
        let config = settings(text).unwrap().complete().unwrap();
        assert_eq!(config.io_backend, BackendArgument::IoUring);
        assert_eq!((config.shards, config.runtime), (2, Runtime::Host));
        assert_eq!(config.log_format, LogFormat::Json);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, named) in [
            ("mtu = 1279", "mtu is 1279"),
            ("shards = 0", "shards is 0"),
            ("shards = 65", "shards is 65"),
            ("service_mode = \"user\"", "service mode user"),
            ("release_base = \"ftp://x\"", "ftp://x"),
        ] {
            let error = settings(text).unwrap().complete().unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
