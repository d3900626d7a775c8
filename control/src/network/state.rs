//! A network as this machine knows it.

use std::cell::{Cell, Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use ployz_api::{InstanceId, MachineId, WorkloadName, WorkloadState};
use ployz_core::{Control, Input, MachineRecord, SESSION_SECS, STALE_SECS, SavedView, View};
use ployz_engine::PublicKey;
use tokio::sync::{Notify, watch};

use crate::host::ca::CertificateAuthority;
use crate::host::clock;
use crate::host::heartbeat::Heartbeat;
use crate::host::membership::Membership;
use crate::host::permits::Permits;
use crate::nats::NatsServer;
use crate::network::error::NetworkError;
use crate::store::Store;

/// A network, from the inside.
#[derive(Debug)]
pub(crate) struct Network {
    pub(super) own: MachineId,
    /// Milliseconds since 1970.
    pub(super) entered_ms: u64,
    pub(crate) membership: Membership,
    pub(crate) store: Store,
    /// Where the store is here.
    pub(crate) storage: Option<Storage>,
    pub(super) control: RefCell<Control>,
    /// Where the store is looked for.
    pub(super) servers: RefCell<BTreeSet<(IpAddr, u16)>>,
    /// Who has a peer and may use the store, once both have been told.
    pub(super) admitted: watch::Sender<BTreeSet<MachineId>>,
    /// Who follows the events through this machine.
    pub(crate) followers: Permits,
    /// Who has a pair examined by this machine.
    pub(crate) examinations: Permits,
    /// Whether the store has been listed since the daemon was started.
    pub(super) listed: Cell<bool>,
    /// Whether a machine that holds the store has said that this one is none of the network's.
    pub(super) removed: Cell<bool>,
    pub(super) resync: Notify,
    pub(super) observe: Notify,
    pub(super) heartbeat: Rc<Heartbeat>,
}

/// What only a machine that holds the store has.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) nats: NatsServer,
    pub(crate) authority: CertificateAuthority,
    /// This machine's own key for the store.
    pub(crate) nkey: String,
}

impl Network {
    /// A network that has been entered, with what was last known of it.
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
            servers: RefCell::new(servers),
            entered_ms: clock::unix_ms(),
            membership,
            store,
            storage,
            control: RefCell::new(control),
            admitted: watch::Sender::default(),
            followers: Permits::default(),
            examinations: Permits::default(),
            listed: Cell::new(false),
            removed: Cell::new(false),
            resync: Notify::new(),
            observe: Notify::new(),
            heartbeat: Heartbeat::new("the control task"),
        }
    }

    /// What is known of it. Not to be held across an await.
    pub(crate) fn view(&self) -> Ref<'_, View> {
        Ref::map(self.control.borrow(), Control::view)
    }

    /// Who this machine is.
    pub(crate) const fn own(&self) -> MachineId {
        self.own
    }

    /// What this machine holds, once the store has said so since the daemon was started; none if it is in the network no
    /// more.
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

    /// Whether this machine was removed without being asked; it runs nothing then.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.get()
    }

    /// What a machine that holds the store says of that.
    pub(crate) fn set_removed(&self, is_so: bool) {
        if is_so && !self.removed.replace(is_so) {
            let network = &self.membership.network;
            tracing::warn!(%network, "this machine was removed from the network: its workloads are stopped");
        }
        self.removed.set(is_so);
    }

    /// A machine that holds the store, and with which there is a session if there is one with any.
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

    /// Whether another machine is to run what this instance is, as well or instead: ids are made one after the other.
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

    /// How an instance is, in its machine's words, if those are not old.
    pub(crate) fn instance_state(&self, machine: MachineId, id: InstanceId) -> WorkloadState {
        let view = self.view();
        let said = view.observed(machine).and_then(|(observed, at)| {
            let is_recent = self.unix_secs().saturating_sub(at) <= STALE_SECS;
            observed.instances.get(&id).filter(|_| is_recent).copied()
        });
        said.unwrap_or(WorkloadState::Unknown)
    }

    /// Tells the store how this machine is, without waiting for the next time.
    pub(crate) fn report_soon(&self) {
        self.observe.notify_one();
    }

    /// Waits until a machine has neither a peer here nor a way to the store.
    pub(crate) async fn expelled(&self, id: MachineId) {
        let mut admitted = self.admitted.subscribe();
        // The sender is ours, so there is always an answer.
        let _ = admitted.wait_for(|admitted| !admitted.contains(&id)).await;
    }

    /// How far the clock here is ahead of the store's, in seconds; none if the store has not heard of us yet.
    pub(crate) fn clock_offset_secs(&self) -> Option<i64> {
        self.view().clock_offset_secs(self.own)
    }

    /// What time it is by the store's clock, as far as known here, in seconds since 1970.
    pub(crate) fn unix_secs(&self) -> u64 {
        let ahead = self.clock_offset_secs().unwrap_or_default();
        clock::now().unix_secs.saturating_add_signed(-ahead)
    }

    /// Whether a view of this age may be wrong.
    pub(crate) const fn is_stale(age_secs: u64) -> bool {
        age_secs > STALE_SECS
    }

    /// Whether the control task makes progress.
    pub(crate) fn heartbeat(&self) -> Rc<Heartbeat> {
        Rc::clone(&self.heartbeat)
    }

    /// The store, or why there is nothing to change in it from here.
    pub(crate) fn coordinator(&self) -> Result<&Storage, NetworkError> {
        self.storage.as_ref().ok_or(NetworkError::NotHolder)
    }
}

/// Whether a peer with this age of handshake has a session.
pub(crate) fn is_session(handshake_age_secs: Option<u64>) -> bool {
    handshake_age_secs.is_some_and(|age| age < SESSION_SECS)
}
