//! A workload's move to another machine.
//!
//! ```text
//!   prepare   Announce, Instruct, Claim   the new instance is written down, and the new machine claims it
//!   copy      Copied?                     the old one ends, if it has volumes, and the new machine fetches them
//!   start     Running?, for a while       the new one has to run
//!   cut over  CutOver                     the workload is the new one, by compare-and-set
//!   release   Release                     the old machine holds it no more
//! ```
//!
//! Until the cut, the old machine holds its instance and its volumes. A failure before it takes the new claim back, and
//! the old machine starts what it had ended, because no other machine is to run it.

use std::time::{Duration, Instant};

use ployz_api::{Code, Failure, MachineId, WorkloadState};

use super::interface::{Next, Procedure, Stage};

/// What ends at once has ended by then, and its machine has said so.
const STEADY: Duration = Duration::from_secs(3);
/// How long the new machine may take to say that it has heard of it, and to start it.
const START_WAIT: Duration = Duration::from_secs(60);
/// At 10 MB/s, 36 GB.
const COPY_WAIT: Duration = Duration::from_secs(3_600);
const POLL: Duration = Duration::from_millis(200);

/// A step of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationStep {
    /// Write down that the workload is to be another instance.
    Announce,
    /// Write down what the new machine is to run.
    Instruct,
    /// Have the new machine claim it.
    Claim,
    /// The new instance's state, as its machine says.
    Look,
    /// The workload is the new instance.
    CutOver,
    /// The old machine holds it no more.
    Release,
    /// The new machine holds it no more, and the workload is the old instance.
    Undo,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationAnswer {
    /// It is done.
    Done,
    /// The new instance's state.
    State(WorkloadState),
}

/// A migration as it goes on.
#[derive(Debug)]
pub struct MigrationProcedure {
    to: MachineId,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Announce,
    Instruct,
    Claim,
    Look(Watch),
    Pause(Instant, Watch),
    CutOver,
    Release,
    Undo(Failure),
    Over(Result<(), Failure>),
}

/// What the new instance is watched for.
#[derive(Clone, Copy, Debug)]
struct Watch {
    goal: Goal,
    /// When the new machine has to have said anything of it.
    heard_by: Instant,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Its volumes are there.
    Copied,
    /// It runs, or has ended well.
    Running,
    /// It still does, then.
    Steady(Instant),
}

impl MigrationProcedure {
    /// The stages in their order.
    pub const STAGES: [&'static str; 5] = ["prepare", "copy", "start", "cut over", "release"];

    /// Begins a migration to a machine.
    pub const fn new(to: MachineId) -> Self {
        Self {
            to,
            phase: Phase::Announce,
        }
    }

    fn watched(&mut self, watch: Watch, state: WorkloadState, now: Instant) {
        if state == WorkloadState::Waiting {
            let message = "it does not run there: its volumes cannot be had, or it ends at once";
            let hint = format!("ployzctl machine inspect {}, and its daemon's log", self.to);
            self.phase = Phase::Undo(Failure::new(Code::Conflict, message).hint(hint));
            return;
        }
        if watch.goal.is_met(state) {
            self.phase = match watch.goal {
                Goal::Copied => Phase::Look(Watch::new(Goal::Running, START_WAIT, now)),
                Goal::Running => {
                    let goal = Goal::Steady(now + STEADY);
                    Phase::Pause(now + POLL, Watch::new(goal, START_WAIT, now))
                }
                Goal::Steady(since) if now >= since => Phase::CutOver,
                Goal::Steady(_) => Phase::Pause(now + POLL, watch),
            };
            return;
        }
        let is_silent = state == WorkloadState::Unknown && now >= watch.heard_by;
        if !is_silent && now < watch.deadline {
            self.phase = Phase::Pause(now + POLL, watch);
            return;
        }
        let message = if is_silent {
            format!("the new machine has not reported it for {START_WAIT:?}")
        } else {
            format!("the new machine only reports that it is {state}")
        };
        let hint = format!("ployzctl doctor {}", self.to);
        self.phase = Phase::Undo(Failure::new(Code::Timeout, message).hint(hint));
    }
}

impl Procedure for MigrationProcedure {
    type Step = MigrationStep;
    type Answer = MigrationAnswer;

    fn next(&self) -> Next<MigrationStep> {
        let [prepare, copy, start, cut_over, release] = Self::STAGES;
        let stage_of = |watch: &Watch| match watch.goal {
            Goal::Copied => copy,
            Goal::Running | Goal::Steady(_) => start,
        };
        let step = |name, step| Next::Step(Stage::of_all(name), step);
        match &self.phase {
            Phase::Announce => step(prepare, MigrationStep::Announce),
            Phase::Instruct => step(prepare, MigrationStep::Instruct),
            Phase::Claim => step(prepare, MigrationStep::Claim),
            Phase::Look(watch) => step(stage_of(watch), MigrationStep::Look),
            Phase::Pause(until, watch) => Next::Wait(Stage::of_all(stage_of(watch)), *until),
            Phase::CutOver => step(cut_over, MigrationStep::CutOver),
            Phase::Release => step(release, MigrationStep::Release),
            Phase::Undo(_) => Next::Step(None, MigrationStep::Undo),
            Phase::Over(outcome) => Next::Done(outcome.clone()),
        }
    }

    fn handle(&mut self, outcome: Result<MigrationAnswer, Failure>, now: Instant) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over(Ok(())));
        self.phase = match (phase, outcome) {
            (Phase::Announce, Ok(_)) => Phase::Instruct,
            // Nothing was written that could be undone.
            (Phase::Announce, Err(failure)) => Phase::Over(Err(failure)),
            (Phase::Instruct, Ok(_)) => Phase::Claim,
            (Phase::Claim, Ok(_)) => Phase::Look(Watch::new(Goal::Copied, COPY_WAIT, now)),
            (Phase::Look(watch), Ok(MigrationAnswer::State(state))) => {
                return self.watched(watch, state, now);
            }
            (Phase::Look(watch), Ok(MigrationAnswer::Done)) => Phase::Pause(now + POLL, watch),
            (Phase::CutOver, Ok(_)) => Phase::Release,
            (Phase::Instruct | Phase::Claim | Phase::Look(_) | Phase::CutOver, Err(failure)) => {
                Phase::Undo(failure)
            }
            (Phase::Release, Ok(_)) => Phase::Over(Ok(())),
            (Phase::Release, Err(failure)) | (Phase::Undo(failure), _) => Phase::Over(Err(failure)),
            (phase @ (Phase::Pause(..) | Phase::Over(_)), _) => phase,
        };
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Pause(until, watch) = &self.phase
            && now >= *until
        {
            self.phase = Phase::Look(*watch);
        }
    }
}

impl Watch {
    fn new(goal: Goal, span: Duration, now: Instant) -> Self {
        Self {
            goal,
            heard_by: now + START_WAIT,
            deadline: now + span,
        }
    }
}

impl Goal {
    const fn is_met(self, state: WorkloadState) -> bool {
        match self {
            Self::Copied => !matches!(state, WorkloadState::Unknown | WorkloadState::Copying),
            Self::Running | Self::Steady(_) => {
                matches!(state, WorkloadState::Running | WorkloadState::Exited)
            }
        }
    }
}

#[cfg(test)]
mod tests;
