//! `ployzd dataplane <interface>`: the data plane alone, as `wireguard-go -f` is.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use ployz_dataplane::DeviceOptions;
use ployz_dataplane::config_file::{self, Config};
use ployz_dataplane::netlink::{HostWatch, Link, Netlink};
use ployz_dataplane::uapi::{SOCKET_DIRECTORY, Server};
use ployz_engine::AllowedIpChange;
use tokio::signal::unix::{SignalKind, signal};

use crate::host::config::{BackendArgument, MTU_DEFAULT, SHARDS_MAX};
use crate::host::logging::{self, LogFormat};
use crate::host::supervisor::announce_ready;
use crate::metrics;
use crate::overlay::follow::{follow_host, follow_mtu};
use crate::overlay::{interface, reflector};

/// The command line of the data plane.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of the interface to create.
    interface: String,
    /// How to talk to the kernel; auto takes io_uring where it is allowed.
    #[arg(long, value_enum, default_value_t = BackendArgument::Auto)]
    io_backend: BackendArgument,
    /// MTU of the interface in bytes [default: 1420, or the MTU of --config]
    #[arg(long, value_parser = clap::value_parser!(u32).range(576..=65_535))]
    mtu: Option<u32>,
    /// Neither TSO nor USO on the TUN, neither GSO nor GRO on UDP.
    #[arg(long)]
    no_offload: bool,
    /// Send every datagram by itself: for a path to a stock WireGuard that mangles batches (UDP GSO). Between ployz
    /// machines this is found out and done for each path.
    #[arg(long)]
    no_udp_gso: bool,
    /// Keys, peers, addresses and MTU: `wg setconf` format with Address and MTU.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Threads to spread the peers over, each with a queue of the TUN and sockets of its own; one peer is always one's.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=SHARDS_MAX))]
    shards: u8,
    /// Where to answer Prometheus (GET /metrics); nowhere by default.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// How to log; auto takes journald where stderr leads to it, and lines of text elsewhere.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    logging::start(arguments.log_format)?;
    let config = arguments
        .config
        .as_deref()
        .map(config_file::load)
        .transpose()?
        .unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run_device(&arguments, config))
}

async fn run_device(arguments: &Arguments, config: Config) -> anyhow::Result<()> {
    // Before anything is made: an early signal must still take everything down.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics_listener = match arguments.metrics_listen {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };
    let options = DeviceOptions {
        name: arguments.interface.clone(),
        backend: arguments.io_backend.into(),
        offload: !arguments.no_offload,
        udp_gso: !arguments.no_udp_gso,
        listen_port: config.update.listen_port.unwrap_or(0),
        shards: arguments.shards.into(),
    };
    let device = interface::open(&options, &config.update).await?;
    let server = Server::bind(Path::new(SOCKET_DIRECTORY), &arguments.interface).await?;
    let netlink = Netlink::open()?;
    let link = Link::by_name(&netlink, &arguments.interface).await?;
    link.set_mtu(arguments.mtu.or(config.mtu).unwrap_or(MTU_DEFAULT))
        .await?;
    let routes = routed_prefixes(&config);
    set_up(&link, &config.addresses, &routes).await?;
    let watch = link.watch()?;
    let host_watch = HostWatch::open()?;
    tracing::info!(
        interface = device.name(),
        backend = device.backend().name(),
        "ready"
    );
    announce_ready()?;
    let gap = Cell::default();
    tokio::select! {
        result = server.serve(&device) => result?,
        () = follow_mtu(watch, &device) => {}
        () = follow_host(host_watch, &device) => {}
        () = interface::attend(&device, None, &gap) => {}
        () = reflector::serve(config.addresses.iter().map(IpNet::addr)) => {}
        () = metrics::serve(metrics_listener, async || metrics::data_plane(&device).await) => {}
        () = device.ended() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    drop(server);
    device
        .stop()
        .map_err(|error| anyhow::anyhow!("the data plane failed: {error}"))
}

/// The prefixes that a configuration file routes through the interface, as `wg-quick` does. A default route would
/// swallow the interface's own datagrams without policy routing, so it is left to the operator's policy.
fn routed_prefixes(config: &Config) -> Vec<IpNet> {
    let changes = config
        .update
        .peers
        .iter()
        .flat_map(|peer| &peer.allowed_ips);
    changes
        .filter_map(|change| match change {
            AllowedIpChange::Add(prefix) if prefix.prefix_len() > 0 => Some(prefix.trunc()),
            AllowedIpChange::Add(_) | AllowedIpChange::Remove(_) => None,
        })
        .collect()
}

/// Without addresses the interface stays down, to be brought up with `ip`.
async fn set_up(link: &Link, addresses: &[IpNet], routes: &[IpNet]) -> anyhow::Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    for address in addresses {
        link.add_address(*address).await?;
    }
    link.set_up().await?;
    for prefix in routes
        .iter()
        .filter(|prefix| !addresses.iter().any(|own| own.trunc() == **prefix))
    {
        link.add_route(*prefix).await?;
    }
    Ok(())
}
