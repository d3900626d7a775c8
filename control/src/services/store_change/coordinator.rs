//! Carrying out a change, on the machine that coordinates it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use ployz_api::{
    Authority, Code, Failure, MachineId, Name, NextStore, Payload, RegionRole, Secret, StorageList,
    StorageStep,
};
use ployz_core::{MachineRecord, OperationRecord, StoreChangeProcedure, StoreChangeStep};
use tokio::time::sleep;

use crate::host::error::HostError;
use crate::machine::{Command, ExclusiveGuard, Machine};
use crate::nats::StoreRole;
use crate::network::Network;
use crate::services::runner::{Executor, start};
use crate::services::store_change::ask::{Part, announce, ask, ask_all};
use crate::services::store_change::journal::{AGAIN, JOURNAL_FILE, Journal, STEP_WAIT};
use crate::services::store_change::member::{adopt, known};
use crate::store::operations::{OperationLog, STORAGE_CHANGE};
use crate::store::records::change;
use crate::store::{OPERATIONS, Store, StoreError};

/// How often the store is asked for the record of a change that the daemon before this one had begun.
const RESUME_POLL: Duration = Duration::from_secs(1);

/// Carries out the steps of a change.
#[derive(Debug)]
struct Coordinator {
    here: Rc<Machine>,
    journal: Journal,
    /// The client of the next store, once its servers run.
    next: Option<Store>,
    _guard: ExclusiveGuard,
}

/// Writes the journal, and begins the change: it goes on after this returns.
///
/// # Errors
/// `INTERNAL` if the journal cannot be written; then nothing has begun.
pub(super) fn coordinate(
    here: &Rc<Machine>,
    log: OperationLog,
    journal: Journal,
    guard: ExclusiveGuard,
) -> Result<(), Failure> {
    here.files.write(JOURNAL_FILE, &journal)?;
    let procedure = StoreChangeProcedure::begin(&journal.members, here.identity.machine_id);
    Coordinator::new(here, journal, guard).start(procedure, log);
    Ok(())
}

/// Completes what the daemon before this one had begun, or undoes it: the store that counts says which.
pub(crate) async fn resume(here: Rc<Machine>, network: Rc<Network>) {
    let Some(guard) = here.store_lock.take() else {
        return;
    };
    let journal = match here.files.read::<Journal>(JOURNAL_FILE) {
        Ok(Some(journal)) => journal,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(%error, "store change not resumed: its journal cannot be read");
            return;
        }
    };
    // A store that counts and that its other holders have not been told of has no majority, and nothing can be read
    // there.
    let is_committed = network.membership.store_epoch >= journal.place.epoch;
    if network.membership.store_epoch == journal.place.epoch {
        let silent = announce(&here, others(&network), &journal.place).await;
        tracing::info!(silent = silent.len(), "store change resumed");
    }
    let log = find_log(&here, &network, &journal).await;
    let (members, own) = (&journal.members, here.identity.machine_id);
    let procedure = if is_committed {
        StoreChangeProcedure::complete(members, own)
    } else {
        let message = "the coordinating daemon has ended; the store is unchanged";
        StoreChangeProcedure::undo(members, own, Failure::new(Code::Internal, message))
    };
    Coordinator::new(&here, journal, guard).start(procedure, log);
}

async fn find_log(here: &Machine, network: &Network, journal: &Journal) -> OperationLog {
    let (store, key) = (&network.store, journal.operation_id.to_string());
    loop {
        let found = store.read::<OperationRecord>(OPERATIONS, &key).await;
        let Ok(found) = found else {
            sleep(RESUME_POLL).await;
            continue;
        };
        // A change that died before its first stage has no record.
        return match found.into_iter().next() {
            Some(record) => OperationLog::resume(store, record),
            None => {
                let own = here.identity.machine_id;
                OperationLog::begin(own, store, STORAGE_CHANGE, String::new(), AGAIN)
            }
        };
    }
}

impl Executor for Coordinator {
    type Procedure = StoreChangeProcedure;

    async fn carry_out(
        &mut self,
        step: StoreChangeStep,
        log: &mut OperationLog,
    ) -> Result<(), Failure> {
        match step {
            StoreChangeStep::Prepare(machine) => self.prepare(machine).await,
            StoreChangeStep::Elect => self.elect().await,
            StoreChangeStep::Freeze => Ok(self.network()?.store.freeze().await?),
            StoreChangeStep::Copy => {
                let replicas = self.journal.members.len();
                let network = self.network()?;
                Ok(network.store.copy_to(self.next()?, replicas).await?)
            }
            StoreChangeStep::Compare => self.compare().await,
            StoreChangeStep::WriteRecords => self.write_records(log).await,
            StoreChangeStep::Commit => self.commit(log).await,
            StoreChangeStep::Thaw => self.thaw(log).await,
            StoreChangeStep::Abandon => self.abandon().await,
            StoreChangeStep::Enter => self.enter(log).await,
            StoreChangeStep::Announce => self.announce().await,
            StoreChangeStep::AskComplete => self.ask_complete().await,
            StoreChangeStep::Settle => self.settle().await,
        }
    }

    fn name_of(&self, machine: MachineId) -> Name {
        let known = self.network().ok().and_then(|network| {
            let view = network.view();
            view.machine(machine).map(|it| it.name.clone())
        });
        known.unwrap_or_else(|| Name::nearest(&machine.to_string()))
    }

    async fn save(&mut self, _change: &StoreChangeProcedure, _log: &mut OperationLog) {
        // The journal says that there is a change, and network.json whether it is committed: nothing else is needed.
    }

    async fn close(&mut self, _outcome: &Result<(), Failure>) {
        if let Err(error) = self.here.files.remove(JOURNAL_FILE) {
            tracing::warn!(%error, "journal of an ended store change not removed");
        }
    }
}

impl Coordinator {
    fn new(here: &Rc<Machine>, journal: Journal, guard: ExclusiveGuard) -> Self {
        Self {
            here: Rc::clone(here),
            journal,
            next: None,
            _guard: guard,
        }
    }

    fn start(self, procedure: StoreChangeProcedure, log: OperationLog) {
        let here = Rc::clone(&self.here);
        start(&here, procedure, self, log);
    }

    fn stays(&self) -> bool {
        let own = self.here.identity.machine_id;
        self.journal.members.contains(&own)
    }

    fn network(&self) -> Result<Rc<Network>, Failure> {
        self.here.running_network()
    }

    fn next(&self) -> Result<&Store, Failure> {
        let missing = || Failure::new(Code::Internal, "no connection to the next store");
        self.next.as_ref().ok_or_else(missing)
    }

    async fn prepare(&self, machine: MachineId) -> Result<(), Failure> {
        let authority = self.here.authority()?;
        let addresses = known(&self.here)?.addresses;
        let next = NextStore {
            location: self.journal.place.clone(),
            coordinator: self.here.identity.machine_id,
            authority: Secret::new(
                serde_json::to_string(&authority).map_err(HostError::render("the authority"))?,
            ),
            addresses: serde_json::to_value(addresses)
                .map_err(HostError::render("the addresses"))?,
        };
        let step = Part::Step(StorageStep::Prepare(Box::new(next)));
        let prepared = ask(&self.here, machine, step, STEP_WAIT).await;
        prepared.map(drop).map_err(|failure| {
            let message = format!("{}: {}", self.name_of(machine), failure.message);
            Failure { message, ..failure }
        })
    }

    async fn elect(&mut self) -> Result<(), Failure> {
        let next = self.connect(&self.journal.place.servers).await?;
        next.begin_copy(self.journal.members.len()).await?;
        self.next = Some(next);
        Ok(())
    }

    async fn connect(&self, servers: &[(IpAddr, u16)]) -> Result<Store, Failure> {
        let servers: Vec<_> = servers
            .iter()
            .map(|it| StoreRole::Next.clients(*it))
            .collect();
        let membership = known(&self.here)?;
        Ok(Store::open_at(&servers, &membership, &self.here.identity).await?)
    }

    async fn compare(&self) -> Result<(), Failure> {
        let (network, mut count) = (self.network()?, 0);
        // Each by itself: which one leads after the cut is chance.
        for server in &self.journal.place.servers {
            let one = self.connect(std::slice::from_ref(server)).await?;
            count = network.store.compare(&one).await?;
        }
        let epoch = self.journal.place.epoch;
        tracing::info!(count, epoch, "next store has every record");
        Ok(())
    }

    /// The records of machines that begin and of those that cease to hold the store, as they are from the cut on.
    async fn write_records(&self, log: &mut OperationLog) -> Result<(), Failure> {
        let (network, next) = (self.network()?, self.next()?);
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
                    Some(_) => (Authority::Storage, RegionRole::HomeData),
                    None => (Authority::Compute, RegionRole::Compute),
                };
                Ok::<_, StoreError>(())
            })
            .await?;
        }
        if self.stays() {
            log.move_to(next);
        }
        Ok(())
    }

    /// Writes down that the next store counts. Only holders write to it: a coordinator that will be none records its
    /// success first, for whoever reads this record sees a store that counts.
    async fn commit(&self, log: &mut OperationLog) -> Result<(), Failure> {
        if !self.stays() {
            log.close_in(self.next()?).await;
        }
        adopt(&self.here, &self.journal.place).map(drop)
    }

    async fn thaw(&self, log: &mut OperationLog) -> Result<(), Failure> {
        let network = self.network()?;
        let thawed = network.store.thaw().await;
        thawed.inspect_err(|failure| {
            tracing::warn!(cause = %failure, "the store accepts no writes yet");
        })?;
        log.move_to(&network.store);
        Ok(())
    }

    async fn abandon(&self) -> Result<(), Failure> {
        let epoch = self.journal.place.epoch;
        let members = self.journal.members.clone();
        let abandoned = ask_all(&self.here, members, || StorageStep::Abandon { epoch });
        for (id, failure) in abandoned.await {
            tracing::warn!(%id, cause = %failure, "unused next store not removed");
        }
        Ok(())
    }

    /// Takes part with the store that counts, unless the daemon was started with it.
    async fn enter(&self, log: &mut OperationLog) -> Result<(), Failure> {
        let epoch = self.journal.place.epoch;
        let network = self.here.network();
        if network.is_none_or(|it| it.membership.store_epoch != epoch) {
            self.here.ask_root(Command::Reenter).await?;
        }
        if self.stays() {
            log.move_to(&self.network()?.store);
        }
        Ok(())
    }

    async fn announce(&self) -> Result<(), Failure> {
        let others = others(&*self.network()?);
        for (id, failure) in announce(&self.here, others, &self.journal.place).await {
            tracing::warn!(%id, cause = %failure, "store location not announced; trying again later");
        }
        Ok(())
    }

    /// Whether every holder has everything, as one of them says.
    async fn ask_complete(&self) -> Result<(), Failure> {
        let own = self.here.identity.machine_id;
        let first = self.journal.members.first().copied();
        let asked = first.filter(|_| !self.stays()).unwrap_or(own);
        let list = ask(&self.here, asked, Part::List, STEP_WAIT).await?;
        match list {
            Some(Payload::StorageList(list)) if self.is_complete(&list) => Ok(()),
            Some(_) | None => Err(Failure::new(Code::Busy, "not every holder is in sync yet")),
        }
    }

    fn is_complete(&self, list: &StorageList) -> bool {
        let current = list.rows.iter().filter(|row| row.current == Some(true));
        let current: BTreeSet<MachineId> = current.map(|row| row.id).collect();
        current == self.journal.members
    }

    async fn settle(&self) -> Result<(), Failure> {
        let epoch = self.journal.place.epoch;
        let holders = &self.journal.members | &self.journal.leavers;
        let settled = ask_all(&self.here, holders, || StorageStep::Settle { epoch });
        for (id, failure) in settled.await {
            tracing::warn!(%id, cause = %failure, "former store not removed");
        }
        Ok(())
    }
}

fn others(network: &Network) -> Vec<MachineId> {
    let view = network.view();
    let ids = view.machines().map(|machine| machine.id);
    ids.filter(|id| *id != network.own()).collect()
}
