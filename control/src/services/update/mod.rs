//! Updating machines, coordinated by the machine that was asked for it. `ployz_core::UpdateProcedure` decides; this
//! carries its steps out.
//!
//! What has been done lies in the store with every step, so that the daemon that comes after this one goes on: that is
//! how the machine that coordinates an update is updated itself.

pub(crate) mod member;
mod mirror;
mod planning;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ployz_api::{
    Code, Failure, MachineId, MachineUpdate, Name, Outcome, Payload, Request, UpdateRequest,
    UpdateStep,
};
use ployz_core::{OperationRecord, UpdateAnswer, UpdateProcedure, UpdateTask, plan_update};
use ployz_install::Layout;
use tokio::time::{sleep, timeout};

use crate::host::program::blocking;
use crate::machine::{ExclusiveGuard, Machine};
use crate::network::{Client, Network};
use crate::services::runner::{Executor, ask_part, start};
use crate::services::update::mirror::pass_on;
use crate::services::update::planning::{candidates, wanted_version};
use crate::store::operations::{OperationLog, unfinished_updates};

pub(crate) use member::step;

/// An artifact has some 20 MB.
const DOWNLOAD_WAIT: Duration = Duration::from_secs(600);
/// Any other step; health takes some round trips.
const STEP_WAIT: Duration = Duration::from_secs(15);
/// How often the store is asked what the daemon before this one had been doing.
const RESUME_POLL: Duration = Duration::from_secs(1);
const AGAIN: &str = "ployzctl machine update again: machines that have the version are left alone";

/// Plans an update, and begins it: it goes on after this returns.
pub(crate) async fn begin(here: &Rc<Machine>, request: UpdateRequest) -> Outcome {
    let network = here.running_network()?;
    let guard = here.update_lock.take_for("an update")?;
    let version = wanted_version(here, request.version.as_deref()).await?;
    let candidates = candidates(here, &network, &request.machines, &version).await?;
    let plan = plan_update(here.identity.machine_id, &candidates)?;
    let names: Vec<&str> = candidates.iter().map(|it| it.name.as_str()).collect();
    let target = names.join(" ");
    let log = OperationLog::begin(
        here.identity.machine_id,
        &network.store,
        "machine-update",
        target,
        AGAIN,
    );
    let state = MachineUpdate {
        operation_id: log.id(),
        version: version.to_string(),
        updated: Vec::new(),
        unchanged: plan.unchanged,
        failed: Vec::new(),
        untouched: plan.order,
        current: None,
        canary: request.canary,
        rollback: request.rollback,
    };
    tracing::info!(%version, machines = state.untouched.len(), "update started");
    let answer = Payload::MachineUpdate(Box::new(state.clone()));
    coordinate(here, &network, log, state, guard);
    Ok(answer.into())
}

/// Goes on with what the daemon before this one had begun, once the store can be read.
pub(crate) async fn resume(here: Rc<Machine>, network: Rc<Network>) {
    if network.storage.is_none() {
        return;
    }
    let Some(guard) = here.update_lock.take() else {
        return;
    };
    let own = here.identity.machine_id;
    let found = loop {
        match unfinished_updates(&network.store, own).await {
            Ok(found) => break found,
            Err(failure) => tracing::debug!(cause = %failure, "operation records not readable yet"),
        }
        sleep(RESUME_POLL).await;
    };
    let resumed = found
        .into_iter()
        .next()
        .and_then(|record: OperationRecord| {
            let state = MachineUpdate::clone(record.row().update.as_deref()?);
            Some((OperationLog::resume(&network.store, record), state))
        });
    if let Some((log, state)) = resumed {
        tracing::info!(id = %state.operation_id, "update resumed");
        coordinate(&here, &network, log, state, guard);
    }
}

fn coordinate(
    here: &Rc<Machine>,
    network: &Network,
    mut log: OperationLog,
    state: MachineUpdate,
    guard: ExclusiveGuard,
) {
    let view = network.view();
    let names = view.machines().map(|it| (it.id, it.name.clone()));
    let names: BTreeMap<MachineId, Name> = names.collect();
    // One that has nothing to do writes its end only.
    log.set_update(&state);
    let own = here.identity.machine_id;
    let coordinator = Coordinator {
        here: Rc::clone(here),
        names: names.clone(),
        saved: state.clone(),
        _guard: guard,
    };
    let procedure = UpdateProcedure::new(state, own, names);
    start(here, procedure, coordinator, log);
}

/// Carries out the steps of an update.
#[derive(Debug)]
struct Coordinator {
    here: Rc<Machine>,
    names: BTreeMap<MachineId, Name>,
    /// The journal as the store has it.
    saved: MachineUpdate,
    _guard: ExclusiveGuard,
}

impl Executor for Coordinator {
    type Procedure = UpdateProcedure;

    async fn carry_out(
        &mut self,
        task: UpdateTask,
        _log: &mut OperationLog,
    ) -> Result<UpdateAnswer, Failure> {
        let version = self.saved.version.clone();
        let (machine, step, patience) = match task {
            UpdateTask::Mirror(machine, arch) => return self.mirror(machine, &arch).await,
            UpdateTask::Fetch(machine, way) => {
                self.still_there(machine)?;
                (machine, UpdateStep::Fetch { version, way }, DOWNLOAD_WAIT)
            }
            UpdateTask::Switch(machine) => {
                let rollback = self.saved.rollback;
                (machine, UpdateStep::Switch { version, rollback }, STEP_WAIT)
            }
            UpdateTask::Health(machine) => (machine, UpdateStep::Health, STEP_WAIT),
            UpdateTask::Confirm(machine) => (machine, UpdateStep::Confirm, STEP_WAIT),
            UpdateTask::Revert(machine) => (machine, UpdateStep::Revert, STEP_WAIT),
        };
        Ok(match self.ask(machine, step, patience).await? {
            Some(Payload::ReleaseFetched(fetched)) => UpdateAnswer::Fetched(fetched),
            Some(Payload::MachineHealth(health)) => UpdateAnswer::Health(health),
            Some(_) | None => UpdateAnswer::Done,
        })
    }

    fn name_of(&self, machine: MachineId) -> Name {
        let known = self.names.get(&machine).cloned();
        known.unwrap_or_else(|| Name::nearest(&machine.to_string()))
    }

    async fn save(&mut self, update: &UpdateProcedure, log: &mut OperationLog) {
        if *update.state() != self.saved {
            self.saved = update.state().clone();
            log.set_update(&self.saved);
            log.write().await;
        }
    }

    async fn close(&mut self, _outcome: &Result<(), Failure>) {
        // What was mirrored for others does no harm if it stays.
        let _stays = blocking(|| Layout::system().remove_mirrors()).await;
    }
}

impl Coordinator {
    async fn ask(
        &self,
        machine: MachineId,
        asked: UpdateStep,
        patience: Duration,
    ) -> Result<Option<Payload>, Failure> {
        let here = &self.here;
        let own = async |asked| step(here, asked).await;
        let other = async |client: Client, asked| {
            let request = Request::UpdateStep(asked);
            Ok(client.ask_as_admin(machine, &request).await?)
        };
        ask_part(here, machine, asked, patience, own, other).await
    }

    async fn mirror(&self, machine: MachineId, arch: &str) -> Result<UpdateAnswer, Failure> {
        let name = self.name_of(machine);
        tracing::info!(machine = %name, "passing the version on");
        let passing = pass_on(&self.here, machine, &self.saved.version, arch);
        let sent = timeout(DOWNLOAD_WAIT, Box::pin(passing)).await;
        let late = |_| {
            Failure::new(
                Code::Timeout,
                format!("the version was not passed on within {DOWNLOAD_WAIT:?}"),
            )
        };
        sent.map_err(late).flatten().map(|()| UpdateAnswer::Done)
    }

    /// A machine that has left meanwhile is not asked.
    fn still_there(&self, machine: MachineId) -> Result<(), Failure> {
        let network = self.here.running_network()?;
        let is_there = network.view().machine(machine).is_some();
        is_there.then_some(()).ok_or_else(|| {
            Failure::new(
                Code::MachineNotFound,
                format!("machine {machine} was removed"),
            )
        })
    }
}
