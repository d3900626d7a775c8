//! A change of the machines that hold the store.
//!
//! ```text
//!   Prepare each ─▶ Elect ─▶ Freeze ─▶ Copy ─▶ Compare ─▶ Write records ─▶ Commit
//!       │             │        │        │        │              │            │
//!       └─────────────┴────────┴────────┴────────┴──────────────┴────────────┤ a failure before the commit
//!                                                                            ▼
//!             Enter, Announce, await Complete, Settle ◀─ committed      Thaw ─▶ Abandon
//! ```
//!
//! After the commit the next store counts, whatever happens: every failure from then on only delays. Before it the
//! store is what it was, and has to take writes again before anything else counts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ployz_api::{Code, Failure, MachineId};

use super::interface::{Next, Procedure, Stage};

/// What the servers of a store may take until all of them have everything: elections, and what they have missed.
const COMPLETE_WAIT: Duration = Duration::from_secs(60);
/// How often they are asked.
const COMPLETE_POLL: Duration = Duration::from_millis(250);
/// How often a store that takes no writes is told to take them again.
const THAW_POLL: Duration = Duration::from_secs(1);

/// A step of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChangeStep {
    /// Have a machine set up an empty server of the next store.
    Prepare(MachineId),
    /// Wait until the next store's servers take streams.
    Elect,
    /// Have the present store refuse writes.
    Freeze,
    /// Copy every stream.
    Copy,
    /// Compare every server of the next store with the present one.
    Compare,
    /// Write the records of machines that begin or cease to hold the store, to the next one.
    WriteRecords,
    /// Write down here that the next store counts.
    Commit,
    /// Have the present store take writes again.
    Thaw,
    /// Have the machines delete what they prepared.
    Abandon,
    /// Take part with the store that counts.
    Enter,
    /// Tell every other machine where the store is.
    Announce,
    /// Ask whether every holder has everything; a failure says that it is not so yet.
    AskComplete,
    /// Have all holders, and former ones, delete what there is of the former store.
    Settle,
}

/// A change as it goes on.
#[derive(Debug)]
pub struct StoreChangeProcedure {
    members: Vec<MachineId>,
    /// Whether the coordinator holds the next store.
    stays: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The member at this place.
    Prepare(usize),
    Elect,
    Freeze,
    Copy,
    Compare,
    WriteRecords,
    Commit,
    Thaw(Failure),
    /// Not before then.
    ThawAgain(Failure, Instant),
    Abandon(Failure),
    /// A coordinator that holds the next store enters before it tells others, one that does not after that.
    Enter {
        is_announced: bool,
    },
    Announce,
    AskComplete(Option<Instant>),
    /// Until the deadline, and not before then.
    AskAgain(Instant, Instant),
    Settle,
    Over(Result<(), Failure>),
}

impl StoreChangeProcedure {
    /// Begins a change to these members, coordinated by `own`.
    pub fn begin(members: &BTreeSet<MachineId>, own: MachineId) -> Self {
        Self::at(members, own, Phase::Prepare(0))
    }

    /// Goes on with a change that is committed.
    pub fn complete(members: &BTreeSet<MachineId>, own: MachineId) -> Self {
        Self::at(members, own, Self::committed(members.contains(&own)))
    }

    /// Undoes a change whose coordinator has died before the commit.
    pub fn undo(members: &BTreeSet<MachineId>, own: MachineId, cause: Failure) -> Self {
        Self::at(members, own, Phase::Thaw(cause))
    }

    fn at(members: &BTreeSet<MachineId>, own: MachineId, phase: Phase) -> Self {
        Self {
            members: members.iter().copied().collect(),
            stays: members.contains(&own),
            phase,
        }
    }

    const fn committed(stays: bool) -> Phase {
        if stays {
            Phase::Enter {
                is_announced: false,
            }
        } else {
            Phase::Announce
        }
    }

    /// The phase after one that can still be undone, if it succeeds.
    fn after(&self, phase: &Phase) -> Option<Phase> {
        Some(match phase {
            Phase::Prepare(at) if at + 1 < self.members.len() => Phase::Prepare(at + 1),
            Phase::Prepare(_) => Phase::Elect,
            Phase::Elect => Phase::Freeze,
            Phase::Freeze => Phase::Copy,
            Phase::Copy => Phase::Compare,
            Phase::Compare => Phase::WriteRecords,
            Phase::WriteRecords => Phase::Commit,
            Phase::Commit => Self::committed(self.stays),
            Phase::Thaw(_)
            | Phase::ThawAgain(..)
            | Phase::Abandon(_)
            | Phase::Enter { .. }
            | Phase::Announce
            | Phase::AskComplete(_)
            | Phase::AskAgain(..)
            | Phase::Settle
            | Phase::Over(_) => return None,
        })
    }
}

impl Procedure for StoreChangeProcedure {
    type Step = StoreChangeStep;
    type Answer = ();

    fn next(&self) -> Next<StoreChangeStep> {
        use StoreChangeStep as Step;
        let step = |name, step| Next::Step(Stage::of_all(name), step);
        match &self.phase {
            Phase::Prepare(at) => match self.members.get(*at) {
                Some(id) => Next::Step(Stage::of(*id, "prepare"), Step::Prepare(*id)),
                None => Next::Done(Ok(())),
            },
            Phase::Elect => step("elect", Step::Elect),
            // From here on a stage goes to the store that will count.
            Phase::Freeze => step("copy", Step::Freeze),
            Phase::Copy => step("copy", Step::Copy),
            Phase::Compare => step("copy", Step::Compare),
            Phase::WriteRecords => step("copy", Step::WriteRecords),
            Phase::Commit => step("cut over", Step::Commit),
            // The store takes no writes yet, and so no stage.
            Phase::Thaw(_) => Next::Step(None, Step::Thaw),
            Phase::ThawAgain(_, until) => Next::Wait(None, *until),
            Phase::Abandon(_) => Next::Step(None, Step::Abandon),
            Phase::Enter { .. } => step("cut over", Step::Enter),
            Phase::Announce => step("cut over", Step::Announce),
            Phase::AskComplete(_) => step("complete", Step::AskComplete),
            Phase::AskAgain(_, until) => Next::Wait(Stage::of_all("complete"), *until),
            Phase::Settle => step("complete", Step::Settle),
            Phase::Over(outcome) => Next::Done(outcome.clone()),
        }
    }

    fn handle(&mut self, outcome: Result<(), Failure>, now: Instant) {
        let phase = std::mem::replace(&mut self.phase, Phase::Over(Ok(())));
        if let Some(after) = self.after(&phase) {
            self.phase = match outcome {
                Ok(()) => after,
                Err(failure) => Phase::Thaw(failure),
            };
            return;
        }
        self.phase = match (phase, outcome) {
            (Phase::Thaw(cause), Ok(())) => Phase::Abandon(cause),
            (Phase::Thaw(cause), Err(_)) => Phase::ThawAgain(cause, now + THAW_POLL),
            // A next store that stays somewhere is unused, and deleted by the next change.
            (Phase::Abandon(cause), _) => Phase::Over(Err(cause)),
            (
                Phase::Enter {
                    is_announced: false,
                },
                _,
            ) => Phase::Announce,
            // A machine that was not told is told later.
            (Phase::Announce, _) if self.stays => Phase::AskComplete(None),
            (Phase::Announce, _) => Phase::Enter { is_announced: true },
            (Phase::Enter { is_announced: true }, _) => Phase::AskComplete(None),
            (Phase::AskComplete(_), Ok(())) => Phase::Settle,
            (Phase::AskComplete(deadline), Err(_)) => {
                let deadline = deadline.unwrap_or(now + COMPLETE_WAIT);
                if now > deadline {
                    Phase::Over(Err(incomplete()))
                } else {
                    Phase::AskAgain(deadline, now + COMPLETE_POLL)
                }
            }
            // A former store that stays on a disk is unused.
            (Phase::Settle, _) => Phase::Over(Ok(())),
            (phase, _) => phase,
        };
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Phase::ThawAgain(cause, until) = &self.phase
            && now >= *until
        {
            self.phase = Phase::Thaw(cause.clone());
        } else if let Phase::AskAgain(deadline, until) = self.phase
            && now >= until
        {
            self.phase = Phase::AskComplete(Some(deadline));
        }
    }
}

fn incomplete() -> Failure {
    let message = "not every machine that holds the store has all of it yet";
    Failure::new(Code::Timeout, message).hint("ployzctl machine storage ls")
}

#[cfg(test)]
mod tests;
