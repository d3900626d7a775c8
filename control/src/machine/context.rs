//! The context: what requests and services need of the machine that they run on.

use std::cell::{Cell, RefCell};
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;

use ipnet::IpNet;
use ployz_api::{Code, Failure};
use quinn::Endpoint;

use crate::host::ca::CertificateAuthority;
use crate::host::config::Config;
use crate::host::error::HostError;
use crate::host::files::DataDirectory;
use crate::host::identity::Identity;
use crate::host::membership::{AUTHORITY_FILE, Membership};
use crate::host::refusals::Refusals;
use crate::host::tasks::TaskGroup;
use crate::host::tls::Presence;
use crate::host::{listener, local_addresses};
use crate::machine::lock::ExclusiveLock;
use crate::machine::participation::{Command, Root};
use crate::nats::{NatsServer, Unit};
use crate::network::{Client, Network};
use crate::overlay::{Overlay, OverlayError, interface_addresses};
use crate::workloads::{WorkloadError, Workloads};

/// This machine: handles to its parts.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) files: Rc<DataDirectory>,
    pub(crate) identity: Rc<Identity>,
    pub(crate) overlay: Overlay,
    pub(crate) refusals: Refusals,
    pub(crate) workloads: Workloads,
    /// Long work that this machine coordinates. It outlives a change of the store, and ends when the network is left.
    pub(crate) operations: TaskGroup,
    /// Held by the one update that this machine may coordinate at a time.
    pub(crate) update_lock: ExclusiveLock,
    /// Held by the one change of the store's holders that it may coordinate at a time.
    pub(crate) store_lock: ExclusiveLock,
    network: RefCell<Option<Rc<Network>>>,
    entering: Cell<bool>,
    root: Root,
}

/// Held while the machine enters or leaves a network, which only one request at a time may do.
#[derive(Debug)]
pub(crate) struct EnteringGuard<'a>(&'a Cell<bool>);

impl Drop for EnteringGuard<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Machine {
    /// A machine in no network, with its instances.
    pub(crate) fn new(
        config: Config,
        files: DataDirectory,
        identity: Identity,
        overlay: Overlay,
        root: Root,
    ) -> Result<Self, WorkloadError> {
        let files = Rc::new(files);
        let workloads = Workloads::open(&files, &config)?;
        Ok(Self {
            config,
            files,
            identity: Rc::new(identity),
            overlay,
            refusals: Refusals::default(),
            workloads,
            operations: TaskGroup::default(),
            update_lock: ExclusiveLock::default(),
            store_lock: ExclusiveLock::default(),
            network: RefCell::new(None),
            entering: Cell::new(false),
            root,
        })
    }

    /// Has the root enter or leave a network, and waits until it has.
    pub(crate) async fn ask_root(&self, command: Command) -> Result<(), Failure> {
        self.root.ask(command).await
    }

    /// Has the root do so after the request that asks for it has been answered.
    pub(crate) fn ask_root_later(&self, command: Command) -> Result<(), Failure> {
        self.root.ask_later(command)
    }

    /// For the root: the network that the machine takes part in from now on.
    pub(crate) fn set_network(&self, network: Option<Rc<Network>>) {
        self.network.replace(network);
    }

    /// The network that this machine takes part in.
    pub(crate) fn network(&self) -> Option<Rc<Network>> {
        self.network.borrow().clone()
    }

    /// The network, for requests that require one.
    ///
    /// # Errors
    /// `NETWORK_NOT_RUNNING`, with what to do about it.
    pub(crate) fn running_network(&self) -> Result<Rc<Network>, Failure> {
        self.network().ok_or_else(|| {
            if let Ok(Some(membership)) = self.membership() {
                let (network, state) = (membership.network, membership.state);
                let message = format!("network {network} is {state} on this machine");
                return Failure::new(Code::NetworkNotRunning, message).hint("ployzctl mesh start");
            }
            Failure::new(Code::NetworkNotRunning, "this machine is in no network")
                .hint("ployzctl mesh init <name>, or ployzctl machine invite import --token-stdin")
        })
    }

    /// The client of other machines in the network.
    ///
    /// # Errors
    /// `NETWORK_NOT_RUNNING`.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Ok(self.client_in(self.running_network()?))
    }

    /// The client of other machines in a network that this machine takes part in.
    pub(crate) fn client_in(&self, network: Rc<Network>) -> Client {
        let port = self.config.listen.port();
        Client::new(
            network,
            Rc::clone(&self.identity),
            Rc::clone(&self.files),
            port,
        )
    }

    /// Whether a machine's certificate still means that it is one of us: removal is what ends it, as far as is known
    /// here.
    pub(crate) fn has_member(&self, id: &str) -> bool {
        let known = |network: Rc<Network>, id| network.view().machine(id).is_some();
        match (self.network(), id.parse()) {
            (Some(network), Ok(id)) => known(network, id),
            (None, _) | (_, Err(_)) => false,
        }
    }

    /// The network that this machine is a member of, whether it takes part or not.
    pub(crate) fn membership(&self) -> Result<Option<Membership>, HostError> {
        Membership::read(&self.files)
    }

    /// The endpoints of this machine's WireGuard on `wg_port`.
    pub(crate) fn endpoints(&self, wg_port: u16) -> Vec<SocketAddr> {
        if !self.config.wg_endpoint.is_empty() {
            return self.config.wg_endpoint.clone();
        }
        let listen = (Ipv6Addr::UNSPECIFIED, wg_port).into();
        local_addresses::endpoints(listen, &self.config.interface)
    }

    /// Keeps other requests from entering or leaving a network meanwhile.
    ///
    /// # Errors
    /// `BUSY`.
    pub(crate) fn begin_entering(&self) -> Result<EnteringGuard<'_>, Failure> {
        if self.entering.replace(true) {
            let message = "another request is changing which network this machine is in";
            return Err(Failure::new(Code::Busy, message).hint("ployzctl status"));
        }
        Ok(EnteringGuard(&self.entering))
    }

    /// The network's certificate authority, where it is here.
    pub(crate) fn authority(&self) -> Result<CertificateAuthority, HostError> {
        let authority = self.files.read(AUTHORITY_FILE)?;
        authority.ok_or_else(|| HostError::Missing {
            path: self.files.path(AUTHORITY_FILE),
        })
    }

    /// The store's server, as it is run here.
    pub(crate) fn nats_server(&self) -> NatsServer {
        let (program, unit) = (&self.config.nats_server, self.config.nats_unit.clone());
        NatsServer::new(Rc::clone(&self.files), program, unit.map(Unit::new))
    }

    /// Listens for requests of other machines and remote clients.
    pub(crate) async fn bind_management(
        &self,
        membership: &Membership,
    ) -> Result<Endpoint, HostError> {
        let presence = self.presence(membership, membership.machine_certificate());
        listener::bind(self.config.listen, presence).await
    }

    /// The certificates of the management server, and the authority that it trusts.
    pub(crate) fn presence<'a>(
        &'a self,
        membership: &'a Membership,
        certificate_pem: &'a str,
    ) -> Presence<'a> {
        Presence {
            ca_pem: &membership.ca_pem,
            certificate_pem,
            key_pem: self.identity.certificate_key_pem.expose(),
            strangers: membership.is_storage(),
        }
    }
}

/// A member's addresses as its interface has them.
pub(crate) fn addresses(membership: &Membership) -> Result<[IpNet; 2], OverlayError> {
    interface_addresses(
        membership.cluster_cidr,
        membership.overlay_ip,
        membership.overlay_ip6,
    )
}
