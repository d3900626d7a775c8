//! `ployzd run`: the whole daemon.

use std::net::Ipv4Addr;
use std::rc::Rc;

use anyhow::{Context as _, bail};
use ployz_api::{
    Credential, LOCAL_CREDENTIAL_FILE, LOCAL_NETWORK, MEMBER_CREDENTIAL_FILE, Role, Secret,
};
use rcgen::KeyPair;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::authority::Authority;
use crate::config::{Arguments, Config};
use crate::daemon::Daemon;
use crate::dataplane::announce_ready;
use crate::files::DataDirectory;
use crate::identity::Identity;
use crate::overlay::Overlay;
use crate::tls::Presence;
use crate::{metrics, server};

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(arguments)?;
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
    let metrics = match config.metrics_listen {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };
    let overlay = Overlay::create(&config, &identity.wireguard_key).await?;
    let daemon = Rc::new(Daemon::new(config, files, identity, overlay));
    daemon.resume().await?;
    open_local(&daemon)?;
    let id = daemon.identity.machine_id;
    tracing::info!(%id, backend = daemon.overlay.backend(), "ready");
    announce_ready()?;
    tokio::select! {
        result = daemon.overlay.serve(metrics) => result?,
        cause = daemon.failed() => bail!("{cause}"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    daemon.files.remove(MEMBER_CREDENTIAL_FILE)?;
    daemon.files.remove(LOCAL_CREDENTIAL_FILE)
}

/// Listens on the loopback interface, and leaves in the data directory what it takes to be heard there: whoever can
/// read that is root here anyway. The authority behind it lives as long as this call.
fn open_local(daemon: &Rc<Daemon>) -> anyhow::Result<()> {
    let authority = Authority::generate(LOCAL_NETWORK)?;
    let (server_key, client_key) = (KeyPair::generate()?, KeyPair::generate()?);
    let subject = daemon.identity.machine_id.to_string();
    let certificate = authority.certify_machine(&subject, &[], &server_key)?;
    let endpoint = server::bind(
        (Ipv4Addr::LOCALHOST, 0).into(),
        Presence {
            ca_pem: authority.certificate_pem(),
            certificate_pem: &certificate,
            key_pem: Secret::new(server_key.serialize_pem()).expose(),
            strangers: false,
        },
    )?;
    let credential = Credential {
        endpoints: vec![endpoint.local_addr().context("the local endpoint")?],
        network: LOCAL_NETWORK.to_owned(),
        ca_pem: authority.certificate_pem().to_owned(),
        certificate_pem: authority.certify_person("root", Role::Admin, None, &client_key)?,
        key_pem: Secret::new(client_key.serialize_pem()),
    };
    daemon.files.write(LOCAL_CREDENTIAL_FILE, &credential)?;
    let serving = server::serve(Rc::clone(daemon), endpoint, LOCAL_NETWORK.to_owned());
    tokio::task::spawn_local(serving);
    Ok(())
}
