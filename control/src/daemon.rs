//! What the daemon is made of, and how it gets into a network.

use std::cell::{Cell, OnceCell};
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;

use anyhow::Context as _;
use ployz_api::{Code, Credential, Failure, MEMBER_CREDENTIAL_FILE, Role, Secret};
use quinn::Endpoint;
use rcgen::KeyPair;
use tokio::sync::Notify;

use crate::authority::Authority;
use crate::clock;
use crate::config::Config;
use crate::files::DataDirectory;
use crate::host;
use crate::identity::Identity;
use crate::membership::{AUTHORITY_FILE, FILE, Membership, VIEW_FILE};
use crate::nats::NatsServer;
use crate::network::{Network, Storage};
use crate::overlay::{Overlay, interface_addresses};
use crate::server;
use crate::store::Store;
use crate::tls::Presence;

/// One daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) config: Config,
    pub(crate) files: Rc<DataDirectory>,
    pub(crate) identity: Identity,
    pub(crate) overlay: Overlay,
    /// Milliseconds since 1970.
    pub(crate) started_ms: u64,
    network: OnceCell<Rc<Network>>,
    entering: Cell<bool>,
    failed: Notify,
    failure: OnceCell<anyhow::Error>,
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
    /// A daemon in no network.
    pub(crate) fn new(
        config: Config,
        files: DataDirectory,
        identity: Identity,
        overlay: Overlay,
    ) -> Self {
        Self {
            config,
            files: Rc::new(files),
            identity,
            overlay,
            started_ms: clock::unix_ms(),
            network: OnceCell::new(),
            entering: Cell::new(false),
            failed: Notify::new(),
            failure: OnceCell::new(),
        }
    }

    /// The network that it is in.
    pub(crate) fn network(&self) -> Option<Rc<Network>> {
        self.network.get().cloned()
    }

    /// The same, where there has to be one.
    pub(crate) fn running_network(&self) -> Result<Rc<Network>, Failure> {
        self.network().ok_or_else(|| {
            Failure::new(Code::NetworkNotRunning, "this machine is in no network")
                .hint("ployzctl mesh init <name>, or ployzctl machine invite import --token-stdin")
        })
    }

    /// Where others reach this machine's WireGuard.
    pub(crate) fn endpoints(&self) -> Vec<SocketAddr> {
        if !self.config.wg_endpoint.is_empty() {
            return self.config.wg_endpoint.clone();
        }
        let listen = (Ipv6Addr::UNSPECIFIED, self.config.wg_port).into();
        host::endpoints(listen, &self.config.interface)
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
        let Some(membership) = self.files.read::<Membership>(FILE)? else {
            return Ok(());
        };
        let addresses = interface_addresses(
            membership.cluster_cidr,
            membership.overlay_ip,
            membership.overlay_ip6,
        )?;
        self.overlay.add_addresses(&addresses).await?;
        let management = self.bind_management(&membership)?;
        let storage = self.resume_storage(&membership).await?;
        let store = Store::open(&membership, &self.identity).await?;
        self.enter(membership, store, storage, management)
    }

    async fn resume_storage(&self, membership: &Membership) -> anyhow::Result<Option<Storage>> {
        if !membership.is_storage() {
            return Ok(None);
        }
        let authority: Authority = self.files.read(AUTHORITY_FILE)?.with_context(|| {
            let file = self.files.path(AUTHORITY_FILE);
            format!("{} is missing: restore it", file.display())
        })?;
        let nats = NatsServer::new(Rc::clone(&self.files), &self.config.nats_server).await?;
        nats.start()?;
        Ok(Some(Storage { nats, authority }))
    }

    /// Listens for requests from afar.
    pub(crate) fn bind_management(&self, membership: &Membership) -> anyhow::Result<Endpoint> {
        server::bind(self.config.listen, self.presence(membership))
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
        let (certificate_pem, key_pem) = match storage {
            Some(storage) => {
                let key = KeyPair::generate()?;
                let subject = format!("root-{}", self.identity.machine_id);
                let certificate =
                    storage
                        .authority
                        .certify_person(&subject, Role::Admin, None, &key)?;
                (certificate, Secret::new(key.serialize_pem()))
            }
            None => (
                membership.certificate_pem.clone(),
                Secret::new(self.identity.certificate_key_pem.expose().to_owned()),
            ),
        };
        Ok(Credential {
            endpoints: Vec::new(),
            network: membership.network_id.to_string(),
            ca_pem: membership.ca_pem.clone(),
            certificate_pem,
            key_pem,
        })
    }

    /// Begins to take part: everything that can fail has been done.
    pub(crate) fn enter(
        self: &Rc<Self>,
        membership: Membership,
        store: Store,
        storage: Option<Storage>,
        management: Endpoint,
    ) -> anyhow::Result<()> {
        let saved = self.files.read(VIEW_FILE).unwrap_or_else(|error| {
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
        let network = Network::new(self.identity.machine_id, membership, store, storage, saved);
        let network = Rc::new(network);
        let entered = self.network.set(Rc::clone(&network));
        entered.map_err(|_| anyhow::anyhow!("this machine is in a network already"))?;
        tokio::task::spawn_local(server::serve(Rc::clone(self), management, label));
        let daemon = Rc::clone(self);
        tokio::task::spawn_local(async move {
            if let Err(error) = Box::pin(network.run(Rc::clone(&daemon))).await {
                let _first = daemon.failure.set(error);
                daemon.failed.notify_one();
            }
        });
        Ok(())
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
