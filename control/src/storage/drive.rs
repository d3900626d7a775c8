//! The change itself, on the machine that coordinates it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ployz_api::{
    Authority as Held, Code, Failure, MachineId, NextStore, Payload, RegionRole, Request, Secret,
    StorageList, StorageStep,
};
use ployz_core::{MachineRecord, OperationRecord};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep};

use super::member::{adopt, known};
use super::places::Standing;
use super::telling::{ask, ask_all, tell};
use super::{AGAIN, JOURNAL_FILE, Journal, STEP_WAIT};
use crate::daemon::Daemon;
use crate::network::Network;
use crate::operations::{STORAGE_CHANGE, Work};
use crate::requests::{change, internal};
use crate::store::{OPERATIONS, Store};

/// What the servers of a store may take until all of them have everything: elections, and what they have missed.
const COMPLETE_WAIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);
/// How often a store that takes no writes is told to take them again.
const THAW_POLL: Duration = Duration::from_secs(1);

/// A change and how it is told.
pub(super) struct Change {
    daemon: Rc<Daemon>,
    work: Work,
    journal: Journal,
    _turn: OwnedMutexGuard<()>,
}

/// Goes on with what the daemon before this one had begun, or undoes it: the store that counts says which.
pub(crate) async fn resume(daemon: Rc<Daemon>, network: Rc<Network>) {
    let Ok(turn) = Arc::clone(&daemon.storage).try_lock_owned() else {
        return;
    };
    let journal = match daemon.files.read::<Journal>(JOURNAL_FILE) {
        Ok(Some(journal)) => journal,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "a change of the store is not resumed"
            );
            return;
        }
    };
    // A store that counts and that its other holders have not been told of has no majority, and nothing can be read there.
    let place = &journal.place;
    if network.membership.store_epoch == place.epoch {
        let untold = tell(&daemon, others(&network), place).await;
        tracing::info!(untold = untold.len(), "a change of the store goes on");
    }
    let is_left = || daemon.network().is_none_or(|it| !Rc::ptr_eq(&it, &network));
    let key = journal.operation_id.to_string();
    let found = loop {
        match network
            .store
            .read::<OperationRecord>(OPERATIONS, &key)
            .await
        {
            Ok(found) => break found.into_iter().next(),
            Err(_) if is_left() => return,
            Err(_) => sleep(THAW_POLL).await,
        }
    };
    // One that died before its first stage has told nobody.
    let work = match found {
        Some(record) => Work::resume(&network.store, record),
        None => Work::begin(
            &daemon,
            &network.store,
            STORAGE_CHANGE,
            String::new(),
            AGAIN,
        ),
    };
    let change = Change::new(&daemon, work, journal, turn);
    if change.is_committed() {
        change.complete().await;
    } else {
        let message = "the daemon that did it has ended: the store is what it was";
        change.undo(&Failure::new(Code::Internal, message)).await;
    }
}

impl Change {
    pub(super) fn new(
        daemon: &Rc<Daemon>,
        work: Work,
        journal: Journal,
        turn: OwnedMutexGuard<()>,
    ) -> Self {
        Self {
            daemon: Rc::clone(daemon),
            work,
            journal,
            _turn: turn,
        }
    }

    pub(super) fn spawn(mut self) {
        tokio::task::spawn_local(async move {
            match Box::pin(self.make()).await {
                Ok(()) => self.complete().await,
                Err(failure) => self.undo(&failure).await,
            }
        });
    }

    fn is_committed(&self) -> bool {
        let membership = self.daemon.membership().ok().flatten();
        membership.is_some_and(|it| it.store_epoch >= self.journal.place.epoch)
    }

    fn stays(&self) -> bool {
        self.journal
            .members
            .contains(&self.daemon.identity.machine_id)
    }

    /// Everything that can be undone, and the write that ends that.
    async fn make(&mut self) -> Result<(), Failure> {
        let network = self.daemon.running_network()?;
        let journal = self.daemon.files.write(JOURNAL_FILE, &self.journal);
        journal.map_err(internal)?;
        self.prepare().await?;
        let next = self.connect(&self.journal.place.servers).await?;
        let replicas = self.journal.members.len();
        self.work.stage("elect").await;
        next.begin_copy(replicas).await?;
        // What is written of it from here on goes to the store that will count.
        self.work.stage("copy").await;
        network.store.freeze().await?;
        network.store.copy_to(&next, replicas).await?;
        let mut count = 0;
        // Each by itself: which one leads after the cut is chance.
        for server in &self.journal.place.servers {
            let one = self.connect(std::slice::from_ref(server)).await?;
            count = network.store.compare(&one).await?;
        }
        tracing::info!(
            count,
            epoch = self.journal.place.epoch,
            "every record is in the next store"
        );
        self.write_records(&network, &next).await?;
        if self.stays() {
            self.work.move_to(&next);
            self.work.stage("cut over").await;
        } else {
            // Only holders write, and this machine will be none: whoever reads this sees a store that counts.
            self.work.twin(&next).end(None).await;
        }
        adopt(&self.daemon, &self.journal.place).map(drop)
    }

    async fn prepare(&mut self) -> Result<(), Failure> {
        let authority = self.daemon.authority().map_err(internal)?;
        let addresses = known(&self.daemon)?.addresses;
        for id in self.journal.members.clone() {
            let name = self.name_of(id)?;
            self.work.stage_of(&name, "prepare").await;
            let next = NextStore {
                location: self.journal.place.clone(),
                coordinator: self.daemon.identity.machine_id,
                authority: Secret::new(
                    serde_json::to_string(&authority).map_err(|it| internal(it.into()))?,
                ),
                addresses: serde_json::to_value(addresses).map_err(|it| internal(it.into()))?,
            };
            let step = Request::StorageStep(StorageStep::Prepare(Box::new(next)));
            let prepared = ask(&self.daemon, id, step, STEP_WAIT).await;
            prepared.map_err(|failure| {
                let message = format!("{name}: {}", failure.message);
                Failure { message, ..failure }
            })?;
            self.work.end_of(&name);
        }
        Ok(())
    }

    async fn connect(&self, servers: &[(IpAddr, u16)]) -> Result<Store, Failure> {
        let servers: Vec<_> = servers
            .iter()
            .map(|it| Standing::Next.clients(*it))
            .collect();
        let membership = known(&self.daemon)?;
        let store = Store::open_at(&servers, &membership, &self.daemon.identity).await;
        store.map_err(internal)
    }

    /// The records of those that begin and of those that cease to hold the store, as they are from the cut on.
    async fn write_records(&self, network: &Network, next: &Store) -> Result<(), Failure> {
        let port_of = |machine: &MachineRecord| {
            let mut servers = self.journal.place.servers.iter();
            let own = servers.find(|(address, _)| *address == IpAddr::from(machine.overlay_ip));
            own.map(|(_, port)| *port)
        };
        let concerned: BTreeSet<MachineId> = &self.journal.members | &self.journal.leavers;
        for id in concerned {
            if network.view().machine(id).is_none() {
                continue;
            }
            change(next, id, |record| {
                record.store_port = port_of(record);
                (record.authority, record.region_role) = match record.store_port {
                    Some(_) => (Held::Storage, RegionRole::HomeData),
                    None => (Held::Compute, RegionRole::Compute),
                };
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// The store is what it was. It has to take writes again before anything else counts.
    async fn undo(mut self, failure: &Failure) {
        tracing::warn!(cause = %failure, "the store is not moved");
        loop {
            let Some(network) = self.daemon.network() else {
                // The daemon after this one finds the journal.
                return;
            };
            match network.store.thaw().await {
                Ok(()) => {
                    self.work.move_to(&network.store);
                    break;
                }
                Err(failure) => tracing::warn!(cause = %failure, "the store takes no writes yet"),
            }
            sleep(THAW_POLL).await;
        }
        let epoch = self.journal.place.epoch;
        let members = self.journal.members.clone();
        for (id, failure) in ask_all(&self.daemon, members, || StorageStep::Abandon { epoch }).await
        {
            tracing::warn!(%id, cause = %failure, "the next store stays there, unused");
        }
        self.close(Some(Some(failure))).await;
    }

    /// The next store counts, whatever happens: all that is left is that everybody knows, and has everything.
    async fn complete(mut self) {
        let place = self.journal.place.clone();
        let others = self
            .daemon
            .network()
            .map(|it| others(&it))
            .unwrap_or_default();
        if self.stays() {
            self.enter().await;
        }
        for (id, failure) in tell(&self.daemon, others.clone(), &place).await {
            tracing::warn!(%id, cause = %failure, "a machine is told later where the store is");
        }
        if !self.stays() {
            self.enter().await;
        }
        if let (true, Some(network)) = (self.stays(), self.daemon.network()) {
            self.work.move_to(&network.store);
        }
        let outcome = self.wait_complete().await;
        if outcome.is_ok() {
            let epoch = place.epoch;
            let holders = &self.journal.members | &self.journal.leavers;
            for (id, failure) in
                ask_all(&self.daemon, holders, || StorageStep::Settle { epoch }).await
            {
                tracing::warn!(%id, cause = %failure, "the former store stays on its disk");
            }
        }
        let stays = self.stays();
        self.close(stays.then_some(outcome.as_ref().err())).await;
    }

    /// Takes part with the store that counts, unless the daemon was started with it.
    async fn enter(&self) {
        let epoch = self.journal.place.epoch;
        let network = self.daemon.network();
        if network.is_none_or(|it| it.membership.store_epoch != epoch) {
            Rc::clone(&self.daemon).re_enter().await;
        }
    }

    /// Waits until every holder has everything, as one of them says.
    async fn wait_complete(&mut self) -> Result<(), Failure> {
        if self.stays() {
            self.work.stage("complete").await;
        }
        let deadline = Instant::now() + COMPLETE_WAIT;
        let own = self.daemon.identity.machine_id;
        let asked = if self.stays() {
            Some(own)
        } else {
            self.journal.members.first().copied()
        };
        loop {
            let list = self.list_of(asked.unwrap_or(own)).await;
            if list.is_ok_and(|list| self.is_complete(&list)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let message = "not every machine that holds the store has all of it yet";
                return Err(
                    Failure::new(Code::Timeout, message).hint("ployzctl machine storage ls")
                );
            }
            sleep(POLL).await;
        }
    }

    async fn list_of(&self, id: MachineId) -> Result<StorageList, Failure> {
        if id == self.daemon.identity.machine_id {
            return crate::requests::storage_list(&self.daemon).await;
        }
        match ask(&self.daemon, id, Request::StorageList, STEP_WAIT).await? {
            Some(Payload::StorageList(list)) => Ok(list),
            Some(_) | None => Err(Failure::new(Code::Internal, "it answered something else")),
        }
    }

    fn is_complete(&self, list: &StorageList) -> bool {
        let current = list.rows.iter().filter(|row| row.current == Some(true));
        let current: BTreeSet<MachineId> = current.map(|row| row.id).collect();
        current == self.journal.members
    }

    fn name_of(&self, id: MachineId) -> Result<ployz_api::Name, Failure> {
        let network = self.daemon.running_network()?;
        let view = network.view();
        let name = view.machine(id).map(|machine| machine.name.clone());
        name.ok_or_else(|| Failure::new(Code::MachineNotFound, format!("machine {id} was removed")))
    }

    /// It is over; how is told by this machine unless it holds no store any more.
    async fn close(self, told: Option<Option<&Failure>>) {
        if let Some(failure) = told {
            self.work.end(failure).await;
        }
        if let Err(error) = self.daemon.files.remove(JOURNAL_FILE) {
            tracing::warn!(
                error = format!("{error:#}"),
                "a change of the store that is over is not forgotten"
            );
        }
    }
}

fn others(network: &Network) -> Vec<MachineId> {
    let view = network.view();
    let ids = view.machines().map(|machine| machine.id);
    ids.filter(|id| *id != network.own()).collect()
}
