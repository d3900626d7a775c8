//! A network that this machine is in: the control task's driver, and the tasks around it.
//!
//! ```text
//!             news                      effects
//!   follow ───────────▶ drive(Control) ─────────▶ data plane, disk, nats-server's users
//!     ▲                      │  │
//!     └────── resync ────────┘  └── observe ─────▶ store
//! ```

use std::cell::{Ref, RefCell};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use ployz_api::{Failure, MachineId};
use ployz_core::{
    Control, Effect, Input, Now, ObservedRecord, RECORD_VERSION, SESSION_SECS, STALE_SECS,
    SavedView, View,
};
use serde_json::Map;
use tokio::sync::{Notify, mpsc};

use crate::authority::Authority;
use crate::clock;
use crate::daemon::Daemon;
use crate::events;
use crate::host;
use crate::membership::{Membership, VIEW_FILE};
use crate::nats::{NatsServer, Settings, User};
use crate::operations;
use crate::places::Places;
use crate::store::{Changes, Listing, Store};

/// News waits here while the data plane is told of earlier news. A listing is one piece.
const NEWS_MAX: usize = 64;
/// A watch that failed is begun anew after this time at first, and at most after the other.
const FOLLOW_WAIT_MIN: Duration = Duration::from_millis(100);
const FOLLOW_WAIT_MAX: Duration = Duration::from_secs(2);

/// A network, from the inside.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) membership: Membership,
    pub(crate) store: Store,
    /// Where the store is here.
    pub(crate) storage: Option<Storage>,
    control: RefCell<Control>,
    /// Who follows the events through this machine.
    pub(crate) followers: Places,
    /// Who has a pair examined by this machine.
    pub(crate) examinations: Places,
    resync: Notify,
    observe: Notify,
}

/// What only a machine that holds the store has.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) nats: NatsServer,
    pub(crate) authority: Authority,
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
        Self {
            membership,
            store,
            storage,
            control: RefCell::new(control),
            followers: Places::default(),
            examinations: Places::default(),
            resync: Notify::new(),
            observe: Notify::new(),
        }
    }

    /// What is known of it. Not to be held across an await.
    pub(crate) fn view(&self) -> Ref<'_, View> {
        Ref::map(self.control.borrow(), Control::view)
    }

    /// Whether a view of this age may be wrong.
    pub(crate) const fn is_stale(age_secs: u64) -> bool {
        age_secs > STALE_SECS
    }

    /// Runs it. Ends only if this machine cannot do what the network wants of it.
    pub(crate) async fn run(self: Rc<Self>, daemon: Rc<Daemon>) -> anyhow::Result<()> {
        let (sender, receiver) = mpsc::channel(NEWS_MAX);
        tokio::select! {
            result = self.drive(&daemon, receiver) => result,
            () = self.follow(&daemon, sender) => Ok(()),
            () = self.report(&daemon) => Ok(()),
            () = self.supervise() => Ok(()),
        }
    }

    async fn drive(&self, daemon: &Daemon, mut news: mpsc::Receiver<Input>) -> anyhow::Result<()> {
        loop {
            while let Some(effect) = self.next_effect() {
                self.carry_out(daemon, effect).await?;
            }
            let deadline = self.control.borrow().poll_timeout();
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => {
                    self.control.borrow_mut().handle_timeout(clock::now());
                }
                Some(input) = news.recv() => {
                    self.control.borrow_mut().handle(input, clock::now());
                }
            }
        }
    }

    fn next_effect(&self) -> Option<Effect> {
        self.control.borrow_mut().poll_effect()
    }

    async fn carry_out(&self, daemon: &Daemon, effect: Effect) -> anyhow::Result<()> {
        match effect {
            Effect::Configure(peers) => daemon.overlay.change_peers(peers).await?,
            Effect::Admit(nkeys) => {
                if let Some(storage) = &self.storage {
                    let settings = self.nats_settings(daemon, nkeys.into_iter())?;
                    storage.nats.configure(&settings)?;
                }
            }
            // The mesh works without it; the next start may have to do with an older one.
            Effect::Save(view) => {
                if let Err(error) = daemon.files.write(VIEW_FILE, &view) {
                    tracing::warn!(error = format!("{error:#}"), "the view is not saved");
                }
            }
            Effect::Resync => self.resync.notify_one(),
            Effect::Observe => self.observe.notify_one(),
        }
        Ok(())
    }

    fn nats_settings(
        &self,
        daemon: &Daemon,
        nkeys: impl Iterator<Item = (MachineId, String)>,
    ) -> anyhow::Result<Settings> {
        let own = daemon.identity.machine_id;
        // Whatever the records say: without itself among them it could not mend them.
        let coordinator = User {
            machine: own,
            nkey: daemon.identity.nkey()?,
            coordinator: true,
        };
        let others = nkeys.filter(|(machine, _)| *machine != own);
        let others = others.map(|(machine, nkey)| User {
            machine,
            nkey,
            coordinator: false,
        });
        Ok(Settings {
            machine: own,
            listen: (self.membership.overlay_ip, daemon.config.nats_port).into(),
            users: std::iter::once(coordinator).chain(others).collect(),
        })
    }

    /// Watches the store, again and again. Never returns.
    async fn follow(&self, daemon: &Daemon, news: mpsc::Sender<Input>) {
        let mut wait = FOLLOW_WAIT_MIN;
        loop {
            match self.follow_anew(daemon).await {
                Ok((listing, changes)) => {
                    wait = FOLLOW_WAIT_MIN;
                    // It is `run` that holds the other end.
                    let _ = news.send(Input::Listed(listing)).await;
                    tokio::select! {
                        () = relay(changes, &news) => {}
                        () = self.resync.notified() => continue,
                    }
                }
                Err(failure) => tracing::debug!(cause = %failure, "cannot follow the store"),
            }
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
            wait = (wait * 2).min(FOLLOW_WAIT_MAX);
        }
    }

    /// Where the store is here, an earlier version of it may lack a bucket, and an earlier daemon may have left work.
    async fn follow_anew(&self, daemon: &Daemon) -> Result<(Listing, Changes), Failure> {
        if self.storage.is_some() {
            self.store.make_buckets().await?;
            events::make_stream(&self.store).await?;
            operations::interrupt_former(daemon, &self.store).await?;
        }
        self.store.follow().await
    }

    /// Tells the store how this machine is, when it is time. Never returns.
    async fn report(&self, daemon: &Daemon) {
        loop {
            self.observe.notified().await;
            if let Err(error) = self.report_once(daemon).await {
                tracing::debug!(error = format!("{error:#}"), "cannot report to the store");
            }
        }
    }

    async fn report_once(&self, daemon: &Daemon) -> anyhow::Result<()> {
        let Now { instant, .. } = clock::now();
        let traffic = daemon.overlay.traffic(instant).await?;
        let sessions = traffic
            .values()
            .filter(|peer| is_session(peer.handshake_age_secs))
            .count();
        let record = ObservedRecord {
            version: RECORD_VERSION,
            id: daemon.identity.machine_id,
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            backend: daemon.overlay.backend().to_owned(),
            workloads: 0,
            sessions: u32::try_from(sessions).context("too many peers")?,
            management: host::endpoints(daemon.config.listen, &daemon.config.interface),
            unknown: Map::new(),
        };
        Ok(self.store.observe(&record).await?)
    }

    /// Keeps the store's server running, where it is here. Never returns.
    async fn supervise(&self) {
        match &self.storage {
            Some(storage) => storage.nats.supervise().await,
            None => std::future::pending().await,
        }
    }

    /// The store, or why there is nothing to change in it from here.
    pub(crate) fn coordinator(&self) -> Result<&Storage, Failure> {
        self.storage.as_ref().ok_or_else(|| {
            Failure::new(
                ployz_api::Code::Unsupported,
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

/// Passes on what changes until the watch ends.
async fn relay(mut changes: Changes, news: &mpsc::Sender<Input>) {
    while let Some(change) = changes.next().await {
        if news.send(Input::Changed(change)).await.is_err() {
            return;
        }
    }
}
