//! An update of several machines, driven by the machine that was asked for it: one after the other, each healthy before the next.
//!
//! ```text
//!   untouched ──▶ download ──▶ switch ──▶ health ──┬─ as well as before ─▶ confirm ─▶ updated, the next one
//!                    │           │                 └─ not in time ───────▶ revert ──▶ failed, and the end
//!                    └───────────┴─▶ failed, and the end
//! ```
//!
//! What has been done lies in the store with every step, so that the daemon that comes after this one goes on: that is how the machine
//! that drives the update is updated itself.

mod passing;
mod planning;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ployz_api::{
    Code, FailedMachine, Failure, MachineHealth, MachineId, MachineUpdate, Name, Outcome, Payload,
    ReleaseSource, Request, Switch, UpdateRequest, UpdateStep, UpdatedMachine, UpdatingMachine,
};
use ployz_core::{OperationRecord, compare_health, plan_update};
use ployz_install::Layout;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep, timeout};

use crate::daemon::Daemon;
use crate::network::Network;
use crate::operations::{Work, unfinished_updates};
use crate::relay;
use crate::requests::update::{blocking, step};
use crate::update::passing::pass_on;
use crate::update::planning::{candidates, wanted_version};

/// An artifact has some 20 MB.
const DOWNLOAD_WAIT: Duration = Duration::from_secs(600);
/// Any other step; health takes some round trips.
const STEP_WAIT: Duration = Duration::from_secs(15);
/// Three attempts at a handshake, and an interval of everything that is done at intervals.
const HEALTH_WAIT: Duration = Duration::from_secs(60);
/// Whoever watches on the machine looks every second, and the former version has to start.
const REVERT_WAIT: Duration = Duration::from_secs(60);
/// How often it is looked how a machine is.
const POLL: Duration = Duration::from_millis(500);
/// How long canaries are watched: long enough for every interval of the control task and of measuring.
const CANARY_WAIT: Duration = Duration::from_secs(30);
/// How often it is looked whether the store can tell what the daemon before had been doing.
const RESUME_POLL: Duration = Duration::from_secs(1);
const AGAIN: &str = "ployzctl machine update again: machines that have the version are left alone";

/// Held by the one update that there can be at a time.
pub(crate) type Turn = Arc<Mutex<()>>;

/// An update and how it is told.
struct Update {
    daemon: Rc<Daemon>,
    work: Work,
    state: MachineUpdate,
    _turn: OwnedMutexGuard<()>,
}

/// Plans an update, and begins it: it goes on after this returns.
pub(crate) async fn begin(daemon: &Rc<Daemon>, request: UpdateRequest) -> Outcome {
    let network = daemon.running_network()?;
    network.coordinator()?;
    let turn = Arc::clone(&daemon.update).try_lock_owned().map_err(|_| {
        let message = "an update is going on";
        Failure::new(Code::Busy, message).hint("ployzctl operation list")
    })?;
    let version = wanted_version(daemon, request.version.as_deref()).await?;
    let candidates = candidates(daemon, &network, &request.machines, &version).await?;
    let plan = plan_update(daemon.identity.machine_id, &candidates)?;
    let names: Vec<&str> = candidates.iter().map(|it| it.name.as_str()).collect();
    let target = names.join(" ");
    let work = Work::begin(daemon, &network.store, "machine-update", target, AGAIN);
    let state = MachineUpdate {
        operation_id: work.id(),
        version: version.to_string(),
        updated: Vec::new(),
        unchanged: plan.unchanged,
        failed: Vec::new(),
        untouched: plan.order,
        current: None,
        canary: request.canary,
        rollback: request.rollback,
    };
    tracing::info!(%version, machines = state.untouched.len(), "an update begins");
    let answer = Payload::MachineUpdate(Box::new(state.clone()));
    spawn(daemon, work, state, turn);
    Ok(answer.into())
}

/// Goes on with what the daemon before this one had begun, once the store can tell.
pub(crate) async fn resume(daemon: Rc<Daemon>, network: Rc<Network>) {
    let Ok(turn) = Arc::clone(&daemon.update).try_lock_owned() else {
        return;
    };
    let own = daemon.identity.machine_id;
    let is_left = || daemon.network().is_none_or(|it| !Rc::ptr_eq(&it, &network));
    let found = loop {
        match unfinished_updates(&network.store, own).await {
            Ok(found) => break found,
            Err(_) if is_left() => return,
            Err(failure) => tracing::debug!(cause = %failure, "no word of an update yet"),
        }
        sleep(RESUME_POLL).await;
    };
    let resumed = found
        .into_iter()
        .next()
        .and_then(|record: OperationRecord| {
            let state = MachineUpdate::clone(record.row().update.as_deref()?);
            Some((Work::resume(&network.store, record), state))
        });
    if let Some((work, state)) = resumed {
        tracing::info!(id = %state.operation_id, "an update goes on");
        spawn(&daemon, work, state, turn);
    }
}

fn spawn(daemon: &Rc<Daemon>, work: Work, state: MachineUpdate, turn: OwnedMutexGuard<()>) {
    let update = Update {
        daemon: Rc::clone(daemon),
        work,
        state,
        _turn: turn,
    };
    tokio::task::spawn_local(update.drive());
}

impl Update {
    async fn drive(mut self) {
        let outcome = self.run().await;
        self.work.set_update(&self.state);
        // What was mirrored for others is in nobody's way if it stays.
        let _stays = blocking(|| Layout::system().remove_mirrors()).await;
        if let Err(failure) = &outcome {
            tracing::warn!(cause = %failure, "the update has stopped");
        }
        self.work.end(outcome.err().as_ref()).await;
    }

    /// The first machine that fails ends it.
    async fn run(&mut self) -> Result<(), Failure> {
        loop {
            if let Some(current) = self.state.current.clone() {
                self.settle(&current).await?;
                self.watch_canaries().await?;
            } else if let Some(id) = self.state.untouched.first().copied() {
                self.exchange(id).await?;
            } else {
                return Ok(());
            }
        }
    }

    /// Brings the version to a machine and has it started there.
    async fn exchange(&mut self, id: MachineId) -> Result<(), Failure> {
        let Some(name) = self.name_of(id) else {
            // It has left the network meanwhile.
            self.state.untouched.remove(0);
            return Ok(());
        };
        let version = self.state.version.clone();
        self.stage(&name, "download").await;
        let fetched = match self.fetch(id, &name).await {
            Ok(way) => self.health(id).await.map(|before| (way, before)),
            Err(failure) => Err(failure),
        };
        let (release_from, before) = match fetched {
            Ok(fetched) => fetched,
            Err(failure) => {
                return Err(self.fail(id, name, "download", failure.message, true));
            }
        };
        self.state.untouched.remove(0);
        if before.version == version {
            // What it had last told the store was of the version before.
            self.state.unchanged.push(id);
            self.work.end_of(&name);
            self.save().await;
            return Ok(());
        }
        self.stage(&name, "switch").await;
        let machine = UpdatingMachine {
            id,
            name: name.clone(),
            before,
            release_from,
        };
        self.state.current = Some(Box::new(machine));
        self.save().await;
        let rollback = self.state.rollback;
        let switch = UpdateStep::Switch { version, rollback };
        match self.ask(id, switch, STEP_WAIT).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(self.fail(id, name, "switch", failure.message, true)),
        }
    }

    /// Has a machine fetch the version, or passes it on to one that cannot.
    async fn fetch(&mut self, id: MachineId, name: &Name) -> Result<ReleaseSource, Failure> {
        let fetch = |way| UpdateStep::Fetch {
            version: self.state.version.clone(),
            way,
        };
        let (own, passed) = (
            fetch(ReleaseSource::Base),
            fetch(ReleaseSource::Coordinator),
        );
        let Some(Payload::ReleaseFetched(fetched)) = self.ask(id, own, DOWNLOAD_WAIT).await? else {
            return Ok(ReleaseSource::Base);
        };
        let Some(cause) = fetched.unreachable else {
            return Ok(ReleaseSource::Base);
        };
        if id == self.daemon.identity.machine_id {
            return Err(Failure::new(Code::InstallFailed, cause));
        }
        tracing::info!(machine = %name, cause, "the version is passed on");
        self.stage(name, "pass on").await;
        let passing = pass_on(&self.daemon, id, &self.state.version, &fetched.arch);
        let sent = timeout(DOWNLOAD_WAIT, Box::pin(passing)).await;
        let late = |_| Failure::new(Code::Timeout, format!("not within {DOWNLOAD_WAIT:?}"));
        sent.map_err(late).flatten().map_err(|failure| {
            let message = format!("{cause}; and it is not passed on: {failure}");
            Failure { message, ..failure }
        })?;
        self.ask(id, passed, DOWNLOAD_WAIT).await?;
        Ok(ReleaseSource::Coordinator)
    }

    /// Waits until a machine is as well as it was, or runs what it ran.
    async fn settle(&mut self, machine: &UpdatingMachine) -> Result<(), Failure> {
        self.stage(&machine.name, "health").await;
        let (id, name) = (machine.id, machine.name.clone());
        let (cause, is_back) = match self.wait_healthy(machine).await {
            Ok(after) => {
                self.state.current = None;
                self.state.updated.push(UpdatedMachine {
                    id,
                    name,
                    from: machine.before.version.clone(),
                    to: after.version,
                    release_from: machine.release_from,
                    gap_ms: after.gap_ms,
                });
                self.work.end_of(&machine.name);
                self.save().await;
                return Ok(());
            }
            Err(verdict) => verdict,
        };
        let is_back = is_back || (self.state.rollback && self.revert(machine).await);
        Err(self.fail(id, name, "health", cause, is_back))
    }

    /// How it is once it is healthy; else why it is not, and whether it has gone back by itself.
    async fn wait_healthy(
        &self,
        machine: &UpdatingMachine,
    ) -> Result<MachineHealth, (String, bool)> {
        let deadline = Instant::now() + HEALTH_WAIT;
        let mut cause = String::new();
        while Instant::now() < deadline {
            match self.health(machine.id).await {
                Ok(after) => match compare_health(&machine.before, &after, &self.state.version) {
                    Ok(()) => {
                        let confirmed = self.ask(machine.id, UpdateStep::Confirm, STEP_WAIT).await;
                        return confirmed.map(|_| after).map_err(|it| (it.message, false));
                    }
                    Err(_) if is_back(machine, &after) => {
                        let version = &self.state.version;
                        let cause = format!("{version} did not stay up: {cause}");
                        return Err((cause, true));
                    }
                    Err(why) => cause = why,
                },
                Err(failure) => cause = failure.message,
            }
            sleep(POLL).await;
        }
        Err((
            format!("not healthy within {HEALTH_WAIT:?}: {cause}"),
            false,
        ))
    }

    /// Has a machine go back; whether it has.
    async fn revert(&self, machine: &UpdatingMachine) -> bool {
        let deadline = Instant::now() + REVERT_WAIT;
        while Instant::now() < deadline {
            // One that cannot be asked goes back when its time is up.
            let _unheard = self.ask(machine.id, UpdateStep::Revert, STEP_WAIT).await;
            let health = self.health(machine.id).await;
            if health.is_ok_and(|health| is_back(machine, &health)) {
                return true;
            }
            sleep(POLL).await;
        }
        false
    }

    /// Before the others follow the canaries, these have to have been well for a while.
    async fn watch_canaries(&mut self) -> Result<(), Failure> {
        let updated = self.state.updated.len();
        let is_time = self.state.canary.is_some_and(|it| it as usize == updated);
        if !is_time || self.state.untouched.is_empty() {
            return Ok(());
        }
        self.work.stage("canaries are watched").await;
        sleep(CANARY_WAIT).await;
        for machine in self.state.updated.clone() {
            let health = self.health(machine.id).await?;
            if health.version != machine.to || !health.store {
                let message = "it was well when it was updated, and is not any more".to_owned();
                return Err(self.fail(machine.id, machine.name, "health", message, false));
            }
        }
        Ok(())
    }

    async fn health(&self, id: MachineId) -> Result<MachineHealth, Failure> {
        match self.ask(id, UpdateStep::Health, STEP_WAIT).await? {
            Some(Payload::MachineHealth(health)) => Ok(*health),
            Some(_) | None => Err(Failure::new(
                Code::Internal,
                "it does not say how it is: is it of an earlier version?",
            )),
        }
    }

    async fn ask(
        &self,
        id: MachineId,
        asked: UpdateStep,
        patience: Duration,
    ) -> Result<Option<Payload>, Failure> {
        let asking = async {
            if id == self.daemon.identity.machine_id {
                step(&self.daemon, asked).await
            } else {
                relay::ask_as_admin(&self.daemon, id, &Request::UpdateStep(asked)).await
            }
        };
        let answer = timeout(patience, Box::pin(asking)).await;
        let late = |_| Failure::new(Code::Timeout, format!("no answer within {patience:?}"));
        Ok(answer.map_err(late)??.payload)
    }

    async fn stage(&mut self, name: &Name, stage: &str) {
        self.work.stage_of(name, stage).await;
    }

    async fn save(&mut self) {
        self.work.set_update(&self.state);
        self.work.write().await;
    }

    /// Notes that a machine has not got the version, which is the end of the update.
    fn fail(
        &mut self,
        id: MachineId,
        name: Name,
        stage: &str,
        message: String,
        rolled_back: bool,
    ) -> Failure {
        let failure = Failure::new(Code::InstallFailed, format!("{name}: {stage}: {message}"));
        self.state.current = None;
        self.state.untouched.retain(|it| *it != id);
        self.state.failed.push(FailedMachine {
            id,
            name,
            stage: stage.to_owned(),
            message,
            rolled_back,
        });
        failure
    }

    fn name_of(&self, id: MachineId) -> Option<Name> {
        let network = self.daemon.network()?;
        let view = network.view();
        view.machine(id).map(|machine| machine.name.clone())
    }
}

/// Whether the machine runs what it ran before.
fn is_back(machine: &UpdatingMachine, health: &MachineHealth) -> bool {
    health.switch == Switch::Reverted && health.version == machine.before.version
}
