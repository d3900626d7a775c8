//! A network that this machine is in: the control task's driver, and the tasks around it.
//!
//! ```text
//!             news                      effects
//!   follow ───────────▶ drive(Control) ─────────▶ data plane, disk, nats-server's users
//!     ▲                      │  │
//!     └────── resync ────────┘  └── observe ─────▶ store
//! ```

use std::cell::{Cell, Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use ployz_api::{Code, Failure, InstanceId, MachineId, RttRecord, WorkloadName, WorkloadState};
use ployz_core::{
    Control, Effect, Input, MachineRecord, ObservedRecord, RECORD_VERSION, SESSION_SECS,
    STALE_SECS, SavedView, View, peer_rtt,
};
use ployz_engine::{PeerUpdate, PublicKey, RttSnapshot};
use serde_json::Map;
use tokio::sync::{Notify, mpsc, watch};

use crate::authority::Authority;
use crate::clock;
use crate::membership::Membership;
use crate::nats::{NatsServer, Settings};
use crate::news::{Changes, Machines};
use crate::operations;
use crate::places::Places;
use crate::storage;
use crate::store::Store;
use crate::watchdog::Pulse;

/// News waits here while the data plane is told of earlier news. A listing is one piece.
const NEWS_MAX: usize = 64;
/// A watch that failed is begun anew after this time at first, and at most after the other.
const FOLLOW_WAIT_MIN: Duration = Duration::from_millis(100);
const FOLLOW_WAIT_MAX: Duration = Duration::from_secs(2);
/// How soon it is known that the store's server has refused somebody.
const LOG_POLL: Duration = Duration::from_secs(1);
/// Two are the error of measuring; people read times to a few more.
const CLOCK_SKEW_SECS: u64 = 5;

/// What a network needs of the machine that it runs on.
pub(crate) trait Host {
    /// `io_uring` or `epoll`.
    fn backend(&self) -> &'static str;
    /// Changes peers, all of them or none.
    async fn change_peers(&self, peers: Vec<PeerUpdate>) -> anyhow::Result<()>;
    /// The round trips to peers.
    async fn round_trips(&self) -> anyhow::Result<BTreeMap<PublicKey, RttSnapshot>>;
    /// The peers with whom there is a session, and where they are.
    async fn sessions(&self) -> anyhow::Result<BTreeMap<PublicKey, SocketAddr>>;
    /// Where its management server is reached.
    fn management(&self) -> Vec<SocketAddr>;
    /// What runs workloads there.
    fn runtime(&self) -> &'static str;
    /// How each is that it holds.
    fn workloads(&self) -> BTreeMap<InstanceId, WorkloadState>;
    /// Keeps the view for a start without the store.
    fn save(&self, view: &View) -> anyhow::Result<()>;
    /// Counts somebody whom the store's server has refused, as `said` has it.
    fn store_refused(&self, said: &str);
}

/// A network, from the inside.
#[derive(Debug)]
pub(crate) struct Network {
    own: MachineId,
    /// Milliseconds since 1970.
    entered_ms: u64,
    pub(crate) membership: Membership,
    pub(crate) store: Store,
    /// Where the store is here.
    pub(crate) storage: Option<Storage>,
    control: RefCell<Control>,
    /// Where the store is looked for.
    servers: RefCell<BTreeSet<(IpAddr, u16)>>,
    /// Who has a peer and may use the store, once both have been told.
    admitted: watch::Sender<BTreeSet<MachineId>>,
    /// Who follows the events through this machine.
    pub(crate) followers: Places,
    /// Who has a pair examined by this machine.
    pub(crate) examinations: Places,
    /// Whether the store has been listed since the daemon was started.
    listed: Cell<bool>,
    /// Whether a machine that holds the store has said that this one is none of the network's.
    removed: Cell<bool>,
    resync: Notify,
    observe: Notify,
    pulse: Rc<Pulse>,
}

/// What only a machine that holds the store has.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) nats: NatsServer,
    pub(crate) authority: Authority,
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
            followers: Places::default(),
            examinations: Places::default(),
            listed: Cell::new(false),
            removed: Cell::new(false),
            resync: Notify::new(),
            observe: Notify::new(),
            pulse: Pulse::new("the control task"),
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
    ) -> Result<MachineId, Failure> {
        let view = self.view();
        let is_there =
            |machine: &MachineRecord| machine.key().is_some_and(|key| sessions.contains_key(&key));
        let coordinator = view.coordinator(is_there).map(|machine| machine.id);
        coordinator.ok_or_else(|| {
            let message = "no machine in view holds the store";
            Failure::new(Code::StoreUnavailable, message).hint("ployzctl machine ls")
        })
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

    /// Tells the store how this machine is, without waiting for the next time.
    pub(crate) fn report_soon(&self) {
        self.observe.notify_one();
    }

    /// Waits until a machine has neither a peer here nor a way to the store.
    pub(crate) async fn forgotten(&self, id: MachineId) {
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

    /// Whether the control task turns.
    pub(crate) fn pulse(&self) -> Rc<Pulse> {
        Rc::clone(&self.pulse)
    }

    /// Runs it. Ends only if this machine cannot do what the network wants of it.
    pub(crate) async fn run(self: Rc<Self>, host: &impl Host) -> anyhow::Result<()> {
        let (sender, receiver) = mpsc::channel(NEWS_MAX);
        tokio::select! {
            result = self.drive(host, receiver) => result,
            () = self.follow(sender) => Ok(()),
            () = self.report(host) => Ok(()),
            () = self.supervise() => Ok(()),
            () = self.count_refusals(host) => Ok(()),
        }
    }

    async fn drive(&self, host: &impl Host, mut news: mpsc::Receiver<Input>) -> anyhow::Result<()> {
        loop {
            while let Some(effect) = self.next_effect() {
                self.carry_out(host, effect).await?;
            }
            let deadline = self.control.borrow().poll_timeout();
            tokio::select! {
                () = self.pulse.beat() => {}
                () = tokio::time::sleep_until(deadline.into()) => {
                    self.control.borrow_mut().handle_timeout(clock::now());
                }
                Some(input) = news.recv() => {
                    let is_listing = matches!(input, Input::Listed(_));
                    self.control.borrow_mut().handle(input, clock::now());
                    self.listed.set(self.listed.get() || is_listing);
                }
            }
        }
    }

    fn next_effect(&self) -> Option<Effect> {
        self.control.borrow_mut().poll_effect()
    }

    async fn carry_out(&self, host: &impl Host, effect: Effect) -> anyhow::Result<()> {
        match effect {
            Effect::Configure(peers) => host.change_peers(peers).await?,
            Effect::Admit(nkeys) => {
                let admitted = nkeys.keys().copied().collect();
                if let Some(storage) = &self.storage {
                    let settings = self.nats_settings(storage)?;
                    storage.nats.configure(&settings)?;
                }
                // The control task says who the peers are before it says who is admitted.
                self.admitted.send_replace(admitted);
            }
            // The mesh works without it; the next start may have to do with an older one.
            Effect::Save => {
                if let Err(error) = host.save(&self.view()) {
                    tracing::warn!(error = format!("{error:#}"), "the view is not saved");
                }
                self.find_store().await;
            }
            Effect::Resync => self.resync.notify_one(),
            Effect::Observe => self.observe.notify_one(),
            Effect::Listen => self.listen(host).await,
        }
        Ok(())
    }

    /// Tells the control task with whom there is a session.
    async fn listen(&self, host: &impl Host) {
        match host.sessions().await {
            Ok(sessions) => {
                let mut control = self.control.borrow_mut();
                control.handle(Input::Sessions(sessions), clock::now());
            }
            // It is asked again; a data plane that has ended ends the daemon elsewhere.
            Err(error) => tracing::debug!(error = format!("{error:#}"), "no sessions are known"),
        }
    }

    fn nats_settings(&self, storage: &Storage) -> anyhow::Result<Settings> {
        let own = storage::own_user(self.own, storage.nkey.clone());
        let membership = &self.membership;
        let place = membership.store_place();
        let view = self.view();
        storage::settings(
            own,
            membership,
            &storage.authority,
            &place,
            None,
            view.machines(),
        )
    }

    /// Whoever holds the store says so in its record: a machine that was away when that changed finds it as long as one of those that it knew
    /// still does.
    async fn find_store(&self) {
        let mut servers: BTreeSet<_> = self.membership.store.iter().copied().collect();
        servers.extend(self.view().store_servers());
        if *self.servers.borrow() != servers {
            let all: Vec<_> = servers.iter().copied().collect();
            self.servers.replace(servers);
            self.store.look_at(&all).await;
        }
    }

    /// Watches the store, again and again. Never returns.
    async fn follow(&self, news: mpsc::Sender<Input>) {
        let mut wait = FOLLOW_WAIT_MIN;
        loop {
            // That it has been connected until now is no news to a listing that comes after it.
            let _ = self.store.connected_anew().now_or_never();
            match self.begin_to_follow().await {
                Ok((listing, changes)) => {
                    wait = FOLLOW_WAIT_MIN;
                    // It is `run` that holds the other end.
                    let _ = news.send(Input::Listed(listing)).await;
                    tokio::select! {
                        () = relay(changes, &news) => {}
                        () = self.resync.notified() => continue,
                        // What has been published meanwhile has not been heard, and it may be another store by now.
                        () = self.store.connected_anew() => continue,
                    }
                }
                Err(failure) => tracing::debug!(cause = %failure, "cannot follow the store"),
            }
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
            wait = (wait * 2).min(FOLLOW_WAIT_MAX);
        }
    }

    /// What machines say of themselves lies in the memory of the store's server, which forgets it with its bucket when it
    /// ends, an earlier version may lack a bucket, and an earlier daemon may have left work: whoever holds the store sees
    /// to it.
    async fn begin_to_follow(&self) -> Result<(Machines, Changes), Failure> {
        if self.storage.is_some() {
            self.store.make_buckets(self.membership.store.len()).await?;
            operations::interrupt_former(&self.store, self.own, self.entered_ms).await?;
        }
        self.store.follow().await
    }

    /// Tells the store how this machine is, when it is time. Never returns.
    async fn report(&self, host: &impl Host) {
        let mut said = false;
        loop {
            self.observe.notified().await;
            if let Err(error) = self.report_once(host).await {
                tracing::debug!(error = format!("{error:#}"), "cannot report to the store");
            }
            let offset_secs = self.clock_offset_secs();
            let skewed = offset_secs.is_some_and(is_skewed);
            if skewed && !said {
                tracing::warn!(offset_secs, "the clock differs from the store's: set it");
            }
            said = skewed;
        }
    }

    async fn report_once(&self, host: &impl Host) -> anyhow::Result<()> {
        let sessions = host.sessions().await?.len();
        let instances = host.workloads();
        let states = instances.values();
        let running = states.filter(|it| **it == WorkloadState::Running).count();
        let record = ObservedRecord {
            version: RECORD_VERSION,
            id: self.own,
            software_version: ployz_install::own_version().to_owned(),
            backend: host.backend().to_owned(),
            workloads: u32::try_from(running).context("too many workloads")?,
            instances,
            runtime: host.runtime().to_owned(),
            sessions: u32::try_from(sessions).context("too many peers")?,
            clock_unix_secs: Some(clock::now().unix_secs),
            management: host.management(),
            unknown: Map::new(),
        };
        self.store.observe(&record).await?;
        let measured = host.round_trips().await?;
        self.store
            .tell_round_trips(&self.rtt_record(&measured))
            .await?;
        Ok(())
    }

    /// What this machine has measured of the way to the others.
    pub(crate) fn rtt_record(&self, measured: &BTreeMap<PublicKey, RttSnapshot>) -> RttRecord {
        let view = self.view();
        let row = |machine: &MachineRecord| {
            let key = PublicKey::from_base64(&machine.wireguard_key).ok()?;
            Some(peer_rtt(machine.id, measured.get(&key)?))
        };
        RttRecord {
            version: RECORD_VERSION,
            id: self.own,
            written_at: clock::now().unix_secs,
            peers: view.machines().filter_map(row).collect(),
            unknown: Map::new(),
        }
    }

    /// Keeps the store's server running, where it is here. Never returns.
    async fn supervise(&self) {
        match &self.storage {
            Some(storage) => storage.nats.supervise().await,
            None => std::future::pending().await,
        }
    }

    /// Counts whom the store's server here refuses. Never returns.
    async fn count_refusals(&self, host: &impl Host) {
        let Some(storage) = &self.storage else {
            return std::future::pending().await;
        };
        let mut log = storage.nats.log();
        loop {
            tokio::time::sleep(LOG_POLL).await;
            for said in log.refusals() {
                host.store_refused(&said);
            }
        }
    }

    /// The store, or why there is nothing to change in it from here.
    pub(crate) fn coordinator(&self) -> Result<&Storage, Failure> {
        self.storage.as_ref().ok_or_else(|| {
            Failure::new(
                Code::Unsupported,
                "this machine does not hold the store, and so cannot sign or invite",
            )
            .hint("run it on a machine that `ployzctl machine ls` shows with authority storage")
        })
    }
}

/// Whether a peer with this age of handshake has a session.
pub(crate) fn is_session(handshake_age_secs: Option<u64>) -> bool {
    handshake_age_secs.is_some_and(|age| age < SESSION_SECS)
}

/// Whether clocks that are so far apart are more than imprecise.
const fn is_skewed(offset_secs: i64) -> bool {
    offset_secs.unsigned_abs() >= CLOCK_SKEW_SECS
}

/// Passes on what changes until the watch ends.
async fn relay(mut changes: Changes, news: &mpsc::Sender<Input>) {
    while let Some(change) = changes.next().await {
        if news.send(Input::Changed(change)).await.is_err() {
            return;
        }
    }
}
