//! An update of several machines: one after the other, each healthy before the next.
//!
//! ```text
//!                                              from the journal: Resume ─┐
//!   Choose ─▶ Fetch ─┬──────────────────────────▶ Before ─▶ Switch ─▶ Check ─┬─▶ Confirm ─▶ Choose, the next machine
//!     ▲              └▶ Mirror ▶ FetchMirrored ─▶┘                           └─▶ Revert ─▶ CheckReverted
//!     │ canaries are healthy for a while                                                        │
//!     └─────────────── WatchCanaries ▶ CheckCanary          every failure ─▶ Over ◀─────────────┘
//! ```
//!
//! [`MachineUpdate`] is the journal: a procedure that is made from it goes on where the last one stopped, so that the
//! machine that coordinates an update can be updated itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ployz_api::{
    Code, FailedMachine, Failure, MachineHealth, MachineId, MachineUpdate, Name, ReleaseFetched,
    ReleaseSource, Switch, UpdatedMachine, UpdatingMachine,
};

use super::interface::{Next, Procedure, Stage};
use crate::update::compare_health;

/// Three attempts at a handshake, and an interval of everything that is done at intervals.
const HEALTH_WAIT: Duration = Duration::from_secs(60);
/// The watcher on the machine checks every second, and the former version has to start.
const REVERT_WAIT: Duration = Duration::from_secs(60);
/// How often a machine is asked for its health.
const POLL: Duration = Duration::from_millis(500);
/// How long canaries are watched: long enough for every interval of the control task and of measuring.
const CANARY_WAIT: Duration = Duration::from_secs(30);

/// A step of an update, on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateTask {
    /// Have it fetch the version.
    Fetch(MachineId, ReleaseSource),
    /// Send it the version for its architecture, as it cannot reach the releases.
    Mirror(MachineId, String),
    /// Ask for its health.
    Health(MachineId),
    /// Have it start the version.
    Switch(MachineId),
    /// Have it keep the version.
    Confirm(MachineId),
    /// Have it go back to the version that it had.
    Revert(MachineId),
}

/// What came of a step.
#[derive(Clone, Debug)]
pub enum UpdateAnswer {
    /// It is done.
    Done,
    /// The version is on the machine, or the machine cannot reach it.
    Fetched(ReleaseFetched),
    /// Its health.
    Health(Box<MachineHealth>),
}

/// An update as it goes on.
#[derive(Debug)]
pub struct UpdateProcedure {
    state: MachineUpdate,
    own: MachineId,
    names: BTreeMap<MachineId, Name>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Fetch(MachineId),
    /// It cannot reach the releases, for this cause.
    Mirror(MachineId, String, String),
    FetchMirrored(MachineId),
    Before(MachineId, ReleaseSource),
    /// Another coordinator has noted the machine, and may have died before or after its switch.
    Resume,
    Switch,
    Check(Patience),
    Confirm(Box<MachineHealth>),
    Revert(Patience),
    CheckReverted(Patience),
    /// Until then; after that `Check` or `Revert` once more.
    Pause(Instant, Patience, After),
    WatchCanaries(Instant),
    /// The canary at this place among those updated.
    CheckCanary(usize),
    Over(Result<(), Failure>),
}

#[derive(Clone, Copy, Debug)]
enum After {
    Check,
    Revert,
}

/// Until when something is tried, and what has stood in its way last.
#[derive(Clone, Debug)]
struct Patience {
    deadline: Instant,
    cause: String,
}

impl UpdateProcedure {
    /// Begins an update, or goes on with one from its journal. `names` has the machines that are in the network.
    pub fn new(state: MachineUpdate, own: MachineId, names: BTreeMap<MachineId, Name>) -> Self {
        let mut update = Self {
            state,
            own,
            names,
            phase: Phase::Over(Ok(())),
        };
        update.choose();
        update
    }

    /// The journal, and what operators see.
    pub const fn state(&self) -> &MachineUpdate {
        &self.state
    }

    /// The machine under way, the next one, or the end.
    fn choose(&mut self) {
        let names = &self.names;
        // A machine that has left the network meanwhile is none of the update's any more.
        self.state.untouched.retain(|id| names.contains_key(id));
        self.phase = if self.state.current.is_some() {
            Phase::Resume
        } else {
            match self.state.untouched.first() {
                Some(id) => Phase::Fetch(*id),
                None => Phase::Over(Ok(())),
            }
        };
    }

    fn fetched(&mut self, id: MachineId, outcome: Result<UpdateAnswer, Failure>) {
        self.phase = match outcome {
            Ok(UpdateAnswer::Fetched(ReleaseFetched {
                arch,
                unreachable: Some(cause),
            })) if id != self.own => Phase::Mirror(id, arch, cause),
            Ok(UpdateAnswer::Fetched(ReleaseFetched {
                unreachable: Some(cause),
                ..
            })) => return self.fail(id, "download", cause, true),
            Ok(UpdateAnswer::Done | UpdateAnswer::Fetched(_) | UpdateAnswer::Health(_)) => {
                Phase::Before(id, ReleaseSource::Base)
            }
            Err(failure) if failure.code == Code::MachineNotFound => {
                self.names.remove(&id);
                return self.choose();
            }
            Err(failure) => return self.fail(id, "download", failure.message, true),
        };
    }

    fn before(
        &mut self,
        id: MachineId,
        release_from: ReleaseSource,
        outcome: Result<UpdateAnswer, Failure>,
    ) {
        let before = match health(outcome) {
            Ok(before) => before,
            Err(failure) => return self.fail(id, "download", failure.message, true),
        };
        self.state.untouched.retain(|it| *it != id);
        if before.version == self.state.version {
            // What it had last told the store was of the version before.
            self.state.unchanged.push(id);
            return self.choose();
        }
        self.state.current = Some(Box::new(UpdatingMachine {
            id,
            name: self.name_of(id),
            before,
            release_from,
        }));
        self.phase = Phase::Switch;
    }

    fn checked(
        &mut self,
        machine: &UpdatingMachine,
        mut patience: Patience,
        outcome: Result<UpdateAnswer, Failure>,
        now: Instant,
    ) {
        let after = match health(outcome) {
            Ok(after) => after,
            Err(failure) => {
                patience.cause = failure.message;
                return self.check_again(machine, patience, now);
            }
        };
        match compare_health(&machine.before, &after, &self.state.version) {
            Ok(()) => self.phase = Phase::Confirm(Box::new(after)),
            Err(_) if is_back(machine, &after) => {
                let (version, cause) = (&self.state.version, patience.cause);
                let cause = format!("{version} did not stay up: {cause}");
                self.fail(machine.id, "health", cause, true);
            }
            Err(cause) => {
                patience.cause = cause;
                self.check_again(machine, patience, now);
            }
        }
    }

    fn check_again(&mut self, machine: &UpdatingMachine, patience: Patience, now: Instant) {
        if now < patience.deadline {
            self.phase = Phase::Pause(now + POLL, patience, After::Check);
            return;
        }
        let cause = format!("not healthy within {HEALTH_WAIT:?}: {}", patience.cause);
        self.unhealthy(machine, cause, now);
    }

    /// The machine is not healthy, and still runs the version.
    fn unhealthy(&mut self, machine: &UpdatingMachine, cause: String, now: Instant) {
        if self.state.rollback {
            self.phase = Phase::Revert(Patience {
                cause,
                ..Patience::new(now, REVERT_WAIT)
            });
        } else {
            self.fail(machine.id, "health", cause, false);
        }
    }

    fn confirmed(&mut self, machine: &UpdatingMachine, after: MachineHealth, now: Instant) {
        self.state.current = None;
        self.state.updated.push(UpdatedMachine {
            id: machine.id,
            name: machine.name.clone(),
            from: machine.before.version.clone(),
            to: after.version,
            release_from: machine.release_from,
            gap_ms: after.gap_ms,
        });
        let updated = self.state.updated.len();
        let are_canaries = self.state.canary.is_some_and(|it| it as usize == updated);
        if are_canaries && !self.state.untouched.is_empty() {
            self.phase = Phase::WatchCanaries(now + CANARY_WAIT);
        } else {
            self.choose();
        }
    }

    fn check_canary(&mut self, at: usize, outcome: Result<UpdateAnswer, Failure>) {
        let Some(machine) = self.state.updated.get(at).cloned() else {
            return self.choose();
        };
        match health(outcome) {
            Ok(health) if health.version == machine.to && health.store => {
                if at + 1 < self.state.updated.len() {
                    self.phase = Phase::CheckCanary(at + 1);
                } else {
                    self.choose();
                }
            }
            Ok(_) => {
                let message = "it was healthy when it was updated, and is not any more";
                self.fail(machine.id, "health", message.to_owned(), false);
            }
            Err(failure) => self.phase = Phase::Over(Err(failure)),
        }
    }

    /// A machine has not got the version, which is the end of the update.
    fn fail(&mut self, id: MachineId, stage: &str, message: String, rolled_back: bool) {
        let name = self.name_of(id);
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
        self.phase = Phase::Over(Err(failure));
    }

    fn name_of(&self, id: MachineId) -> Name {
        let known = self.names.get(&id).cloned();
        known.unwrap_or_else(|| Name::nearest(&id.to_string()))
    }
}

impl Procedure for UpdateProcedure {
    type Step = UpdateTask;
    type Answer = UpdateAnswer;

    fn next(&self) -> Next<UpdateTask> {
        let current = self.state.current.as_ref().map(|it| it.id);
        let on_current = |name, task: fn(MachineId) -> UpdateTask| match current {
            Some(id) => Next::Step(Stage::of(id, name), task(id)),
            None => Next::Done(Ok(())),
        };
        match &self.phase {
            Phase::Fetch(id) => {
                let task = UpdateTask::Fetch(*id, ReleaseSource::Base);
                Next::Step(Stage::of(*id, "download"), task)
            }
            Phase::Mirror(id, arch, _) => {
                let task = UpdateTask::Mirror(*id, arch.clone());
                Next::Step(Stage::of(*id, "pass on"), task)
            }
            Phase::FetchMirrored(id) => {
                let task = UpdateTask::Fetch(*id, ReleaseSource::Coordinator);
                Next::Step(Stage::of(*id, "pass on"), task)
            }
            Phase::Before(id, _) => Next::Step(Stage::of(*id, "download"), UpdateTask::Health(*id)),
            Phase::Switch => on_current("switch", UpdateTask::Switch),
            Phase::Resume | Phase::Check(_) | Phase::CheckReverted(_) => {
                on_current("health", UpdateTask::Health)
            }
            Phase::Confirm(..) => on_current("health", UpdateTask::Confirm),
            Phase::Revert(_) => on_current("health", UpdateTask::Revert),
            Phase::Pause(until, ..) => Next::Wait(None, *until),
            Phase::WatchCanaries(until) => {
                Next::Wait(Stage::of_all("canaries are watched"), *until)
            }
            Phase::CheckCanary(at) => match self.state.updated.get(*at) {
                Some(canary) => Next::Step(
                    Stage::of_all("canaries are watched"),
                    UpdateTask::Health(canary.id),
                ),
                None => Next::Done(Ok(())),
            },
            Phase::Over(outcome) => Next::Done(outcome.clone()),
        }
    }

    fn handle(&mut self, outcome: Result<UpdateAnswer, Failure>, now: Instant) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over(Ok(())));
        let current = self.state.current.clone();
        match (phase, current) {
            (Phase::Fetch(id), _) => self.fetched(id, outcome),
            (Phase::Mirror(id, _, cause), _) => match outcome {
                Ok(_) => self.phase = Phase::FetchMirrored(id),
                Err(failure) => {
                    let message = format!("{cause}; passing it on failed: {failure}");
                    self.fail(id, "download", message, true);
                }
            },
            (Phase::FetchMirrored(id), _) => match outcome {
                Ok(_) => self.phase = Phase::Before(id, ReleaseSource::Coordinator),
                Err(failure) => self.fail(id, "download", failure.message, true),
            },
            (Phase::Before(id, way), _) => self.before(id, way, outcome),
            (Phase::Switch, Some(machine)) => match outcome {
                Ok(_) => self.phase = Phase::Check(Patience::new(now, HEALTH_WAIT)),
                Err(failure) => self.fail(machine.id, "switch", failure.message, true),
            },
            (Phase::Resume, Some(machine)) => {
                let health = health(outcome);
                let is_untouched = health.is_ok_and(|it| {
                    it.switch == Switch::None && it.version == machine.before.version
                });
                self.phase = if is_untouched {
                    Phase::Switch
                } else {
                    Phase::Check(Patience::new(now, HEALTH_WAIT))
                };
            }
            (Phase::Check(patience), Some(machine)) => {
                self.checked(&machine, patience, outcome, now);
            }
            (Phase::Confirm(after), Some(machine)) => match outcome {
                Ok(_) => self.confirmed(&machine, *after, now),
                Err(failure) => self.unhealthy(&machine, failure.message, now),
            },
            // One that cannot be asked goes back when its time is up.
            (Phase::Revert(patience), Some(_)) => self.phase = Phase::CheckReverted(patience),
            (Phase::CheckReverted(patience), Some(machine)) => {
                let is_back = health(outcome).is_ok_and(|health| is_back(&machine, &health));
                if is_back || now >= patience.deadline {
                    self.fail(machine.id, "health", patience.cause, is_back);
                } else {
                    self.phase = Phase::Pause(now + POLL, patience, After::Revert);
                }
            }
            (Phase::CheckCanary(at), _) => self.check_canary(at, outcome),
            // Nothing was asked.
            (
                phase @ (Phase::Pause(..)
                | Phase::WatchCanaries(_)
                | Phase::Over(_)
                | Phase::Resume
                | Phase::Switch
                | Phase::Check(_)
                | Phase::Confirm(..)
                | Phase::Revert(_)
                | Phase::CheckReverted(_)),
                _,
            ) => self.phase = phase,
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Pause(until, patience, after) = &self.phase
            && now >= *until
        {
            let patience = patience.clone();
            self.phase = match after {
                After::Check => Phase::Check(patience),
                After::Revert => Phase::Revert(patience),
            };
        } else if let Phase::WatchCanaries(until) = self.phase
            && now >= until
        {
            self.phase = Phase::CheckCanary(0);
        }
    }
}

impl Patience {
    fn new(now: Instant, span: Duration) -> Self {
        Self {
            deadline: now + span,
            cause: String::new(),
        }
    }
}

fn health(outcome: Result<UpdateAnswer, Failure>) -> Result<MachineHealth, Failure> {
    match outcome? {
        UpdateAnswer::Health(health) => Ok(*health),
        UpdateAnswer::Done | UpdateAnswer::Fetched(_) => Err(Failure::new(
            Code::Internal,
            "the machine does not report its health: is its version an earlier one?",
        )),
    }
}

/// Whether the machine runs what it ran before.
fn is_back(machine: &UpdatingMachine, health: &MachineHealth) -> bool {
    health.switch == Switch::Reverted && health.version == machine.before.version
}

#[cfg(test)]
mod tests;
