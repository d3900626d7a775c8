//! `ployzd run`: the whole daemon.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use ployz_api::{
    Credential, LOCAL_CREDENTIAL_FILE, LOCAL_NETWORK, MEMBER_CREDENTIAL_FILE, NetworkState, Role,
    Secret,
};
use ployz_core::SavedView;
use rcgen::KeyPair;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use crate::daemon::participation::Networks;
use crate::daemon::watchdog;
use crate::host::ca::CertificateAuthority;
use crate::host::config::Config;
use crate::host::files::DataDirectory;
use crate::host::identity::Identity;
use crate::host::membership::{self, Membership, VIEW_FILE};
use crate::host::supervisor::announce_ready;
use crate::host::tls::Presence;
use crate::host::{clock, listener};
use crate::machine::{Machine, Root};
use crate::metrics;
use crate::overlay::Overlay;
use crate::server::{self, Server};

/// Requests at a time: what all connections of both servers may ask together.
const UNDER_WAY_MAX: u32 = 2 * server::REQUESTS_MAX;
/// How long requests that are under way may keep a daemon that is to stop.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// When the last process ended, in milliseconds since 1970: what the next one measures the gap in traffic with.
const ENDED_FILE: &str = "ended.json";

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    // What others write for us in the data directory, nats-server's log and store, is nobody else's either.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, run_daemon(config))
}

async fn run_daemon(config: Config) -> anyhow::Result<()> {
    // Before anything is made: a signal that comes early must still find everything taken down.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let files = DataDirectory::open(&config.data_dir)?;
    let identity = Identity::open(&files)?;
    let scrapes = match config.metrics_listen {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };
    let overlay = open_overlay(&config, &files, &identity).await?;
    let (root, commands) = Root::channel();
    let machine = Rc::new(Machine::new(config, files, identity, overlay, root)?);
    let under_way = Rc::new(Semaphore::new(UNDER_WAY_MAX as usize));
    let networks = Networks::new(&machine, &under_way);
    networks.resume().await?;
    let local = open_local(&machine, &under_way).await?;
    let id = machine.identity.machine_id;
    tracing::info!(%id, backend = machine.overlay.backend(), "ready");
    announce_ready()?;
    let page = async || {
        let overlay = machine.overlay.metrics().await;
        overlay.map(|text| text + &super::metrics::page(&machine))
    };
    let heartbeats = || {
        let local = std::iter::once(local.heartbeat());
        local.chain(networks.heartbeats()).collect()
    };
    let ended = tokio::select! {
        result = machine.overlay.serve() => result.map_err(anyhow::Error::from),
        () = metrics::serve(scrapes, page) => Ok(()),
        result = networks.serve(commands) => result.map_err(anyhow::Error::from),
        () = watchdog::feed(&machine, heartbeats) => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    tracing::info!("stopping");
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    let servers = std::iter::once(local).chain(networks.server());
    stop(&under_way, servers.collect()).await;
    networks.save_view().await;
    // Without it the next process measures a shorter gap than there was.
    if let Err(error) = machine.files.write(ENDED_FILE, &clock::unix_ms()) {
        tracing::debug!(%error, "end of the process not recorded");
    }
    machine.files.remove(MEMBER_CREDENTIAL_FILE)?;
    machine.files.remove(LOCAL_CREDENTIAL_FILE)?;
    ended
}

/// Lets requests that are under way end, within reason, and says goodbye. No new ones are taken.
async fn stop(under_way: &Semaphore, servers: Vec<Server>) {
    for server in &servers {
        server.refuse();
    }
    let all = under_way.acquire_many(UNDER_WAY_MAX);
    if tokio::time::timeout(STOP_WAIT, all).await.is_err() {
        tracing::warn!("stopping although requests are under way");
    }
    for server in servers {
        server.close().await;
    }
}

/// Opens the interface as the network knows it in which this machine was when its last daemon ended: packets that have
/// been waiting since find their peers.
async fn open_overlay(
    config: &Config,
    files: &DataDirectory,
    identity: &Identity,
) -> anyhow::Result<Overlay> {
    let membership: Option<Membership> = files.read(membership::FILE)?;
    // It says nothing of the process that ends after this one.
    let ended_ms = files.read(ENDED_FILE).unwrap_or_default();
    files.remove(ENDED_FILE)?;
    let running = membership.filter(|it| it.state == NetworkState::Running);
    let port = running.as_ref().and_then(|it| it.wg_port);
    let saved: Option<SavedView> = match running {
        // The store has it all, and whoever reads it next says so if it is damaged.
        Some(_) => files.read_last_good(VIEW_FILE).unwrap_or_default(),
        None => None,
    };
    let peers = saved.map(|saved| saved.peers(identity.machine_id));
    let overlay = Overlay::open(
        config,
        &identity.wireguard_key,
        port.unwrap_or(config.wg_port),
        peers.unwrap_or_default(),
        ended_ms,
    );
    Ok(overlay.await?)
}

/// Listens on the loopback interface, and leaves in the data directory what it takes to be heard there: whoever can
/// read that is root here anyway. The authority behind it lives as long as this call.
async fn open_local(machine: &Rc<Machine>, under_way: &Rc<Semaphore>) -> anyhow::Result<Server> {
    let authority = CertificateAuthority::generate(LOCAL_NETWORK)?;
    let (server_key, client_key) = (KeyPair::generate()?, KeyPair::generate()?);
    let certificate = authority.certify_host(machine.identity.machine_id, &server_key)?;
    let endpoint = listener::bind(
        (Ipv4Addr::LOCALHOST, 0).into(),
        Presence {
            ca_pem: authority.certificate_pem(),
            certificate_pem: &certificate,
            key_pem: Secret::new(server_key.serialize_pem()).expose(),
            strangers: false,
        },
    )
    .await?;
    let credential = Credential {
        endpoints: vec![endpoint.local_addr()?],
        network: LOCAL_NETWORK.to_owned(),
        ca_pem: authority.certificate_pem().to_owned(),
        certificate_pem: authority.certify_person("root", Role::Admin, None, &client_key)?,
        key_pem: Secret::new(client_key.serialize_pem()),
    };
    machine.files.write(LOCAL_CREDENTIAL_FILE, &credential)?;
    let name = "the local server";
    Ok(Server::start(
        machine,
        under_way,
        endpoint,
        LOCAL_NETWORK.to_owned(),
        name,
    ))
}
