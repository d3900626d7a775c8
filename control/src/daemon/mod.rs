//! What the daemon is made of, and how it gets into a network.

mod metrics;
pub(crate) mod run;
mod telling;
pub(crate) mod watchdog;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use ipnet::IpNet;
use ployz_api::{Code, Credential, Failure, MEMBER_CREDENTIAL_FILE, NetworkState, Role, Secret};
use quinn::Endpoint;
use rcgen::KeyPair;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use crate::daemon::watchdog::Pulse;
use crate::host::ca::Authority;
use crate::host::config::Config;
use crate::host::failure::internal;
use crate::host::files::DataDirectory;
use crate::host::identity::Identity;
use crate::host::local_addresses;
use crate::host::membership::{AUTHORITY_FILE, FILE, Membership, VIEW_FILE};
use crate::host::refusals::Refusals;
use crate::host::tls::Presence;
use crate::nats::{Certificates, NatsServer};
use crate::network::{Network, Storage};
use crate::overlay::reflector;
use crate::overlay::{Overlay, interface_addresses};
use crate::server;
use crate::server::Server;
use crate::services::migration::resume as resume_migrations;
use crate::services::removal;
use crate::services::store_change;
use crate::services::update;
use crate::services::update::Turn;
use crate::store::Store;
use crate::workloads::Workloads;

/// Requests at a time: what all connections of both servers may ask together.
const REQUESTS_MAX: u32 = 2 * server::REQUESTS_MAX;
/// How long requests that are under way may keep a daemon that is to stop.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// One daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) config: Config,
    pub(crate) files: Rc<DataDirectory>,
    pub(crate) identity: Identity,
    pub(crate) overlay: Overlay,
    pub(crate) refusals: Refusals,
    pub(crate) workloads: Workloads,
    /// Each request that is being carried out holds one.
    pub(crate) requests: Semaphore,
    /// Updates of machines take turns.
    pub(crate) update: Turn,
    /// And so do changes of who holds the store.
    pub(crate) storage: Turn,
    local: OnceCell<Server>,
    running: RefCell<Option<Running>>,
    entering: Cell<bool>,
    failed: Notify,
    failure: OnceCell<anyhow::Error>,
}

/// A network that this machine takes part in, and what serves it here.
#[derive(Debug)]
struct Running {
    network: Rc<Network>,
    server: Server,
    task: JoinHandle<()>,
}

/// Held while the daemon gets into a network, which only one request at a time may try.
#[derive(Debug)]
pub(crate) struct Entering<'a>(&'a Cell<bool>);

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Daemon {
    /// A daemon in no network, and what it runs all the same.
    pub(crate) fn new(
        config: Config,
        files: DataDirectory,
        identity: Identity,
        overlay: Overlay,
    ) -> anyhow::Result<Self> {
        let files = Rc::new(files);
        let workloads = Workloads::open(&files, &config)?;
        Ok(Self {
            config,
            files,
            identity,
            overlay,
            refusals: Refusals::default(),
            workloads,
            requests: Semaphore::new(REQUESTS_MAX as usize),
            update: Turn::default(),
            storage: Turn::default(),
            local: OnceCell::new(),
            running: RefCell::new(None),
            entering: Cell::new(false),
            failed: Notify::new(),
            failure: OnceCell::new(),
        })
    }

    /// The network that it is in.
    pub(crate) fn network(&self) -> Option<Rc<Network>> {
        let running = self.running.borrow();
        running.as_ref().map(|running| Rc::clone(&running.network))
    }

    /// The same, where there has to be one.
    pub(crate) fn running_network(&self) -> Result<Rc<Network>, Failure> {
        self.network().ok_or_else(|| {
            if let Ok(Some(membership)) = self.membership() {
                let (network, state) = (membership.network, membership.state);
                let message = format!("network {network} is {state} here, and not running");
                return Failure::new(Code::NetworkNotRunning, message).hint("ployzctl mesh start");
            }
            Failure::new(Code::NetworkNotRunning, "this machine is in no network")
                .hint("ployzctl mesh init <name>, or ployzctl machine invite import --token-stdin")
        })
    }

    /// Whether a machine's certificate still means that it is one of us: removal is what ends it, as far as is known here.
    pub(crate) fn has_member(&self, id: &str) -> bool {
        let known = |network: Rc<Network>, id| network.view().machine(id).is_some();
        match (self.network(), id.parse()) {
            (Some(network), Ok(id)) => known(network, id),
            (None, _) | (_, Err(_)) => false,
        }
    }

    /// The network that it knows of, whether it takes part in it or not.
    pub(crate) fn membership(&self) -> anyhow::Result<Option<Membership>> {
        self.files.read(FILE)
    }

    /// Where others reach this machine's WireGuard, if that is on `wg_port`.
    pub(crate) fn endpoints(&self, wg_port: u16) -> Vec<SocketAddr> {
        if !self.config.wg_endpoint.is_empty() {
            return self.config.wg_endpoint.clone();
        }
        let listen = (Ipv6Addr::UNSPECIFIED, wg_port).into();
        local_addresses::endpoints(listen, &self.config.interface)
    }

    /// Keeps other requests from getting into a network meanwhile.
    pub(crate) fn begin_entering(&self) -> Result<Entering<'_>, Failure> {
        if self.entering.replace(true) {
            let message = "this machine is being put into a network by another request";
            return Err(Failure::new(Code::Busy, message).hint("ployzctl status"));
        }
        Ok(Entering(&self.entering))
    }

    /// Gets back into the network that it was in when it stopped, if there was one.
    pub(crate) async fn resume(self: &Rc<Self>) -> anyhow::Result<()> {
        match self.membership()? {
            Some(membership) if membership.state == NetworkState::Running => {
                self.take_part(membership).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Takes part in a network that it is a member of.
    pub(crate) async fn take_part(self: &Rc<Self>, membership: Membership) -> anyhow::Result<()> {
        if let Some(port) = membership.wg_port {
            self.overlay.set_port(port).await?;
        }
        self.overlay.add_addresses(&addresses(&membership)?).await?;
        store_change::move_in(self, &membership).await?;
        let management = self.bind_management(&membership).await?;
        let storage = self.resume_storage(&membership).await?;
        let store = Store::open(&membership, &self.identity).await?;
        self.enter(membership, store, storage, management)
    }

    /// Takes no new requests from afar, and waits, within reason, until those who have asked have their answers.
    pub(crate) async fn answered(&self) {
        let server = self.running.borrow().as_ref().map(|it| it.server.clone());
        if let Some(server) = server {
            server.drain().await;
        }
    }

    /// Takes part no more. What lies on disk stays.
    pub(crate) async fn leave(&self) -> anyhow::Result<()> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        running.server.retire();
        running.task.abort();
        // Only when it has ended does it give nobody to the data plane any more.
        let _aborted = running.task.await;
        self.files.remove(MEMBER_CREDENTIAL_FILE)?;
        let membership = &running.network.membership;
        tracing::info!(network = %membership.network, "leaving");
        if let Some(storage) = &running.network.storage {
            storage.nats.stop().await?;
        }
        self.overlay.clear_peers().await?;
        self.overlay
            .remove_addresses(&addresses(membership)?)
            .await?;
        if membership.wg_port.is_some() {
            self.overlay.set_port(self.config.wg_port).await?;
        }
        Ok(())
    }

    /// Takes part anew with what `network.json` says by now: where the store is, and whether it is here. The data plane goes on meanwhile.
    pub(crate) async fn re_enter(self: Rc<Self>) {
        let Some(running) = self.running.take() else {
            return;
        };
        // Who has asked for this hears the answer.
        let Running {
            network,
            server,
            task,
        } = running;
        server.drain().await;
        server.close().await;
        task.abort();
        let _aborted = task.await;
        // Their ports are wanted again.
        drop((network, server));
        let entered = match self.membership() {
            Ok(Some(membership)) => self.take_part(membership).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        // Whoever starts it again has it try once more.
        if let Err(error) = entered {
            self.fail(error);
        }
    }

    fn fail(&self, error: anyhow::Error) {
        let _first = self.failure.set(error);
        self.failed.notify_one();
    }

    /// The network's authority, where it is here.
    pub(crate) fn authority(&self) -> anyhow::Result<Authority> {
        self.files.read(AUTHORITY_FILE)?.with_context(|| {
            let file = self.files.path(AUTHORITY_FILE);
            format!("{} is missing: restore it", file.display())
        })
    }

    /// The store's server, as it is run here.
    pub(crate) fn nats_server(&self) -> NatsServer {
        let (program, unit) = (&self.config.nats_server, self.config.nats_unit.clone());
        NatsServer::new(Rc::clone(&self.files), program, unit)
    }

    async fn resume_storage(&self, membership: &Membership) -> anyhow::Result<Option<Storage>> {
        if !membership.is_storage() {
            return Ok(None);
        }
        let authority = self.authority()?;
        let nats = self.nats_server();
        // They follow from what we have: a damaged one must not keep the store down.
        nats.write_certificates(Certificates {
            ca_pem: &membership.ca_pem,
            certificate_pem: &membership.certificate_pem,
            key_pem: self.identity.certificate_key_pem.expose(),
        })?;
        // The mesh does without it, and it is tried again and again.
        if let Err(error) = nats.start().await {
            tracing::warn!(error = format!("{error:#}"), "nats-server does not start");
        }
        Ok(Some(Storage {
            nats,
            authority,
            nkey: self.identity.nkey()?,
        }))
    }

    /// Listens for requests from afar.
    pub(crate) async fn bind_management(
        &self,
        membership: &Membership,
    ) -> anyhow::Result<Endpoint> {
        server::bind(self.config.listen, self.presence(membership)).await
    }

    /// What it shows to those who ask from afar, and whom it believes.
    pub(crate) fn presence<'a>(&'a self, membership: &'a Membership) -> Presence<'a> {
        Presence {
            ca_pem: &membership.ca_pem,
            certificate_pem: &membership.certificate_pem,
            key_pem: self.identity.certificate_key_pem.expose(),
            strangers: membership.is_storage(),
        }
    }

    /// By what the rest of the network knows root of this host: as an admin where the network's authority lies in
    /// root's hands anyway, and everywhere else as the machine.
    fn member_credential(
        &self,
        membership: &Membership,
        storage: Option<&Storage>,
    ) -> anyhow::Result<Credential> {
        if let Some(storage) = storage {
            return self.credential_of_root(membership, &storage.authority);
        }
        let key = self.identity.certificate_key_pem.expose().to_owned();
        let certificate = membership.certificate_pem.clone();
        Ok(credential(membership, certificate, Secret::new(key)))
    }

    fn credential_of_root(
        &self,
        membership: &Membership,
        authority: &Authority,
    ) -> anyhow::Result<Credential> {
        let key = KeyPair::generate()?;
        let subject = format!("root-{}", self.identity.machine_id);
        let certificate = authority.certify_person(&subject, Role::Admin, None, &key)?;
        let key = Secret::new(key.serialize_pem());
        Ok(credential(membership, certificate, key))
    }

    /// As root of this host, for as long as the network's authority lies here: a machine that hands the store over has it until the other
    /// ones have been told.
    pub(crate) fn admin_credential(&self) -> Result<Credential, Failure> {
        let made = || {
            let membership = self.membership()?.context("in no network")?;
            self.credential_of_root(&membership, &self.authority()?)
        };
        made().map_err(internal)
    }

    /// Begins to take part: everything that can fail has been done.
    pub(crate) fn enter(
        self: &Rc<Self>,
        membership: Membership,
        store: Store,
        storage: Option<Storage>,
        management: Endpoint,
    ) -> anyhow::Result<()> {
        let saved = self
            .files
            .read_last_good(VIEW_FILE)
            .unwrap_or_else(|error| {
                // The store has it all; only a start without the store would miss it.
                tracing::warn!(
                    error = format!("{error:#}"),
                    "starting without a saved view"
                );
                None
            });
        let member = self.member_credential(&membership, storage.as_ref())?;
        self.files.write(MEMBER_CREDENTIAL_FILE, &member)?;
        tracing::info!(network = %membership.network, id = %membership.network_id, "in a network");
        let label = membership.network_id.to_string();
        let own_addresses = [membership.overlay_ip.into(), membership.overlay_ip6.into()];
        let network = Network::new(self.identity.machine_id, membership, store, storage, saved);
        let network = Rc::new(network);
        if network.storage.is_some() {
            tokio::task::spawn_local(update::resume(Rc::clone(self), Rc::clone(&network)));
        }
        tokio::task::spawn_local(store_change::resume(Rc::clone(self), Rc::clone(&network)));
        let (daemon, driven) = (Rc::clone(self), Rc::clone(&network));
        let task = tokio::task::spawn_local(async move {
            let run = tokio::select! {
                run = Box::pin(Rc::clone(&driven).run(&*daemon)) => run,
                () = reflector::serve(own_addresses) => Ok(()),
                () = daemon.workloads.look_after(&daemon, &driven) => Ok(()),
                () = resume_migrations(&daemon, &driven) => Ok(()),
                () = removal::watch(&daemon, &driven) => Ok(()),
                () = store_change::tell_the_silent(&daemon, &driven) => Ok(()),
            };
            if let Err(error) = run {
                daemon.fail(error);
            }
        });
        let server = Server::start(self, management, label, "the management server");
        let running = Running {
            network,
            server,
            task,
        };
        let before = self.running.replace(Some(running));
        anyhow::ensure!(before.is_none(), "this machine is in a network already");
        Ok(())
    }

    /// Serves root of this host from now on.
    pub(crate) fn serve_locally(self: &Rc<Self>, endpoint: Endpoint, network: String) {
        let server = Server::start(self, endpoint, network, "the local server");
        // There is one for all of the daemon's life.
        let _first = self.local.set(server);
    }

    /// Of everything that has to turn.
    pub(crate) fn pulses(&self) -> Vec<Rc<Pulse>> {
        let running = self.running.borrow();
        let running = running.iter();
        let of_network = running.flat_map(|it| [it.network.pulse(), it.server.pulse()]);
        let local = self.local.get().map(Server::pulse);
        local.into_iter().chain(of_network).collect()
    }

    /// Lets requests that are under way end, within reason, and says goodbye. No new ones are taken.
    pub(crate) async fn stop(&self) {
        let network = self.running.borrow().as_ref().map(|it| it.server.clone());
        let servers: Vec<Server> = self
            .local
            .get()
            .cloned()
            .into_iter()
            .chain(network)
            .collect();
        for server in &servers {
            server.refuse();
        }
        let all = self.requests.acquire_many(REQUESTS_MAX);
        if tokio::time::timeout(STOP_WAIT, all).await.is_err() {
            tracing::warn!("stopping although requests are under way");
        }
        for server in servers {
            server.close().await;
        }
    }

    /// Waits until it cannot go on.
    pub(crate) async fn failed(&self) -> String {
        self.failed.notified().await;
        self.failure
            .get()
            .map(|error| format!("{error:#}"))
            .unwrap_or_default()
    }
}

fn credential(membership: &Membership, certificate_pem: String, key_pem: Secret) -> Credential {
    Credential {
        endpoints: Vec::new(),
        network: membership.network_id.to_string(),
        ca_pem: membership.ca_pem.clone(),
        certificate_pem,
        key_pem,
    }
}

/// A member's addresses as its interface has them.
pub(crate) fn addresses(membership: &Membership) -> anyhow::Result<[IpNet; 2]> {
    interface_addresses(
        membership.cluster_cidr,
        membership.overlay_ip,
        membership.overlay_ip6,
    )
}
