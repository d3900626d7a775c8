//! A network as this machine knows it.

use std::cell::{Cell, Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use ployz_api::client::Facts;
use ployz_api::{InstanceId, MachineId, WorkloadName, WorkloadState};
use ployz_core::{Control, Input, MachineRecord, SESSION_SECS, STALE_SECS, SavedView, View};
use ployz_engine::PublicKey;
use tokio::sync::{Notify, watch};

use crate::host::ca::CertificateAuthority;
use crate::host::clock;
use crate::host::heartbeat::Heartbeat;
use crate::host::membership::Membership;
use crate::host::permits::Permits;
use crate::host::tls;
use crate::nats::NatsServer;
use crate::network::error::NetworkError;
use crate::store::Store;

/// 1 January 2026: no certificate was signed earlier, and a machine that has seen none that ends knows that much.
const EARLIEST_UNIX_SECS: u64 = 1_767_225_600;

/// A network, its control task and its store.
#[derive(Debug)]
pub(crate) struct Network {
    pub(super) own: MachineId,
    /// Milliseconds since 1970.
    pub(super) entered_ms: u64,
    pub(crate) membership: Membership,
    /// This machine's certificate for the management protocol, as it is by now.
    certificate: RefCell<String>,
    /// When the newest certificate of a machine was issued that was seen here, in seconds since 1970: so late it is at
    /// least, and without news nothing expires.
    evidence: Cell<u64>,
    pub(crate) store: Store,
    /// The store's server, on a holder.
    pub(crate) storage: Option<Storage>,
    pub(super) control: RefCell<Control>,
    /// The addresses that the store's client connects to.
    pub(super) servers: watch::Sender<BTreeSet<(IpAddr, u16)>>,
    /// Machines that have a peer and may use the store, once both are configured.
    pub(super) admitted: watch::Sender<BTreeSet<MachineId>>,
    /// Says when somebody is believed no more.
    pub(super) distrust: watch::Sender<()>,
    /// Examinations of pairs by this machine.
    pub(crate) examinations: Permits,
    /// Whether the store has been listed since the daemon was started.
    pub(super) listed: Cell<bool>,
    /// Whether a holder of the store has said that this machine was removed.
    pub(super) removed: Cell<bool>,
    pub(super) resync: Notify,
    pub(super) observe: Notify,
    pub(super) heartbeat: Rc<Heartbeat>,
}

/// The parts of a network that only a holder of the store has.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) nats: NatsServer,
    pub(crate) authority: CertificateAuthority,
    /// This machine's own key for the store.
    pub(crate) nkey: String,
}

impl Network {
    /// A network that this machine enters, with the view that was last saved.
    pub(crate) fn new(
        own: MachineId,
        membership: Membership,
        store: Store,
        storage: Option<Storage>,
        saved: Option<SavedView>,
    ) -> Self {
        let now = clock::now();
        let mut control = Control::new(own, now);
        if let Some(saved) = saved {
            control.handle(Input::Restored(saved), now);
        }
        let servers = membership.store.iter().copied().collect();
        Self {
            own,
            servers: watch::Sender::new(servers),
            entered_ms: clock::unix_ms(),
            evidence: Cell::new(issued_at(membership.machine_certificate())),
            certificate: RefCell::new(membership.machine_certificate().to_owned()),
            membership,
            store,
            storage,
            control: RefCell::new(control),
            admitted: watch::Sender::default(),
            distrust: watch::Sender::default(),
            examinations: Permits::default(),
            listed: Cell::new(false),
            removed: Cell::new(false),
            resync: Notify::new(),
            observe: Notify::new(),
            heartbeat: Heartbeat::new("the control task"),
        }
    }

    /// The view of the network. It must not be held across an await.
    pub(crate) fn view(&self) -> Ref<'_, View> {
        Ref::map(self.control.borrow(), Control::view)
    }

    /// This machine's certificate for the management protocol.
    pub(crate) fn certificate(&self) -> String {
        self.certificate.borrow().clone()
    }

    /// Uses another certificate from now on.
    pub(crate) fn set_certificate(&self, pem: &str) {
        pem.clone_into(&mut self.certificate.borrow_mut());
        self.note_issue(issued_at(pem));
    }

    /// Notes when a machine's certificate was issued that has been verified.
    pub(crate) fn note_issue(&self, unix_secs: u64) {
        self.evidence.set(self.evidence.get().max(unix_secs));
    }

    /// The time by which certificates of machines are judged, in seconds since 1970: not later than the newest that was
    /// seen, for with nobody left who signs, membership would end by a clock; and not later than this host's clock, for
    /// a signer's may be wrong.
    pub(crate) fn certificate_time(&self) -> u64 {
        let seen = self.evidence.get().min(clock::now().unix_secs);
        seen.max(EARLIEST_UNIX_SECS)
    }

    /// The id of this machine.
    pub(crate) const fn own(&self) -> MachineId {
        self.own
    }

    /// The instances that this machine is to run, once the store has been listed since the daemon was started; none of
    /// them if it was removed.
    pub(crate) fn own_claims(&self) -> Option<BTreeMap<InstanceId, WorkloadName>> {
        if self.is_removed() {
            return Some(BTreeMap::new());
        }
        if !self.listed.get() {
            return None;
        }
        let view = self.view();
        view.machine(self.own).map(|own| own.workloads.clone())
    }

    /// Whether this machine was removed by force; it runs nothing then.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.get()
    }

    /// Sets whether this machine was removed, as a holder of the store says.
    pub(crate) fn set_removed(&self, is_so: bool) {
        if is_so && !self.removed.replace(is_so) {
            let network = &self.membership.network;
            tracing::warn!(%network, "this machine was removed from the network; stopping its workloads");
        }
        self.removed.set(is_so);
    }

    /// A holder of the store, preferably one that has a session.
    pub(crate) fn coordinator_id(
        &self,
        sessions: &BTreeMap<PublicKey, SocketAddr>,
    ) -> Result<MachineId, NetworkError> {
        let view = self.view();
        let is_there =
            |machine: &MachineRecord| machine.key().is_some_and(|key| sessions.contains_key(&key));
        let coordinator = view.coordinator(is_there).map(|machine| machine.id);
        coordinator.ok_or(NetworkError::NoHolder)
    }

    /// Whether another machine has a later instance of the same workload. Ids sort by creation time.
    pub(crate) fn is_succeeded(&self, id: InstanceId) -> bool {
        let view = self.view();
        let own = view.machine(self.own).map(|own| &own.workloads);
        let Some(workload) = own.and_then(|claims| claims.get(&id)) else {
            return false;
        };
        let newer = |(other, held): (&InstanceId, &WorkloadName)| *other > id && held == workload;
        view.machines()
            .any(|machine| machine.workloads.iter().any(newer))
    }

    /// The state of an instance as its machine reports it; unknown if the report is stale.
    pub(crate) fn instance_state(&self, machine: MachineId, id: InstanceId) -> WorkloadState {
        let view = self.view();
        let said = view.observed(machine).and_then(|(observed, at)| {
            let is_recent = self.unix_secs().saturating_sub(at) <= STALE_SECS;
            observed.instances.get(&id).filter(|_| is_recent).copied()
        });
        said.unwrap_or(WorkloadState::Unknown)
    }

    /// Makes a report to the store due now.
    pub(crate) fn report_soon(&self) {
        self.observe.notify_one();
    }

    /// Waits until a machine has neither a peer here nor access to the store.
    pub(crate) async fn expelled(&self, id: MachineId) {
        let mut admitted = self.admitted.subscribe();
        // The sender is ours, so there is always an answer.
        let _ = admitted.wait_for(|admitted| !admitted.contains(&id)).await;
    }

    /// The news that somebody is believed no more.
    pub(crate) fn disbelief(&self) -> watch::Receiver<()> {
        self.distrust.subscribe()
    }

    /// The seconds by which this clock is ahead of the store's; none before the first report.
    pub(crate) fn clock_offset_secs(&self) -> Option<i64> {
        self.view().clock_offset_secs(self.own)
    }

    /// The time by the store's clock, as far as its offset is known, in seconds since 1970.
    pub(crate) fn unix_secs(&self) -> u64 {
        let ahead = self.clock_offset_secs().unwrap_or_default();
        clock::now().unix_secs.saturating_add_signed(-ahead)
    }

    /// Whether a view of this age may be outdated.
    pub(crate) const fn is_stale(age_secs: u64) -> bool {
        age_secs > STALE_SECS
    }

    /// The control task's heartbeat.
    pub(crate) fn heartbeat(&self) -> Rc<Heartbeat> {
        Rc::clone(&self.heartbeat)
    }

    /// The server and the authority with which this machine coordinates changes.
    ///
    /// # Errors
    /// [`NetworkError::NotHolder`].
    pub(crate) fn require_storage(&self) -> Result<&Storage, NetworkError> {
        self.storage.as_ref().ok_or(NetworkError::NotHolder)
    }
}

/// When a certificate was issued; 0 if it has no end, as those of earlier versions.
fn issued_at(pem: &str) -> u64 {
    let facts = tls::certificate(pem).ok();
    let facts = facts.and_then(|certificate| Facts::read(&certificate));
    facts
        .and_then(|facts| facts.issued_at())
        .unwrap_or_default()
}

/// Whether a peer with this age of handshake has a session.
pub(crate) fn is_session(handshake_age_secs: Option<u64>) -> bool {
    handshake_age_secs.is_some_and(|age| age < SESSION_SECS)
}
