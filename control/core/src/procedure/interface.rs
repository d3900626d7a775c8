//! The interface between what decides and what carries out.

use std::time::Instant;

use ployz_api::{Failure, MachineId};

/// Long work, decided step by step.
///
/// The runner's loop: act on [`next`](Self::next), hand the outcome to [`handle`](Self::handle) or call
/// [`handle_timeout`](Self::handle_timeout), and begin anew until it says [`Next::Done`].
pub trait Procedure {
    /// Something to carry out, as data.
    type Step;
    /// What came of a step that did not fail.
    type Answer;

    /// The step to carry out or the time to wait for. It stays the same until an outcome or the time has been handled.
    fn next(&self) -> Next<Self::Step>;

    /// Takes the outcome of the step.
    fn handle(&mut self, outcome: Result<Self::Answer, Failure>, now: Instant);

    /// Goes on after a wait. Call when the time that [`Next::Wait`] names has come.
    fn handle_timeout(&mut self, now: Instant);
}

/// What the runner has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Next<S> {
    /// Carry this out, in this stage or in the one that was.
    Step(Option<Stage>, S),
    /// Wait until then, likewise.
    Wait(Option<Stage>, Instant),
    /// Nothing more: this came of it.
    Done(Result<(), Failure>),
}

/// Where the work is, as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The machine that it is about, where each has stages of its own.
    pub machine: Option<MachineId>,
    /// Its name.
    pub name: &'static str,
}

impl Stage {
    pub(super) const fn of(machine: MachineId, name: &'static str) -> Option<Self> {
        Some(Self {
            machine: Some(machine),
            name,
        })
    }

    pub(super) const fn of_all(name: &'static str) -> Option<Self> {
        Some(Self {
            machine: None,
            name,
        })
    }
}
