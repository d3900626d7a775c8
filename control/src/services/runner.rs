//! One runner for all long work: it carries out the steps of a [`Procedure`], waits, and keeps the journal. What is
//! decided is the procedure's, how a step is carried out the executor's.

use std::time::Duration;

use ployz_api::{Code, Failure, MachineId, Name, Outcome, Payload};
use ployz_core::{Next, Procedure, Stage};
use tokio::time::{sleep_until, timeout};

use crate::host::clock;
use crate::machine::Machine;
use crate::network::Client;
use crate::store::operations::OperationLog;

/// How the steps of a procedure are carried out.
pub(crate) trait Executor: 'static {
    /// What decides.
    type Procedure: Procedure + 'static;

    /// Carries out a step.
    async fn carry_out(
        &mut self,
        step: <Self::Procedure as Procedure>::Step,
        log: &mut OperationLog,
    ) -> Result<<Self::Procedure as Procedure>::Answer, Failure>;

    /// A machine's name, as operators know it.
    fn name_of(&self, machine: MachineId) -> Name;

    /// Writes down what a later coordinator has to know, after each outcome.
    async fn save(&mut self, procedure: &Self::Procedure, log: &mut OperationLog);

    /// Cleans up when all is over, before that is recorded.
    async fn close(&mut self, outcome: &Result<(), Failure>);
}

/// Begins long work: it goes on after this returns, and as long as the machine is in the network.
pub(crate) fn start<E: Executor>(
    here: &Machine,
    procedure: E::Procedure,
    executor: E,
    log: OperationLog,
) {
    here.operations.spawn(async move {
        Box::pin(run(procedure, executor, log)).await;
    });
}

/// Carries long work out to its end.
pub(crate) async fn run<E: Executor>(
    mut procedure: E::Procedure,
    mut executor: E,
    mut log: OperationLog,
) {
    let mut stage = None;
    let outcome = loop {
        match procedure.next() {
            Next::Step(next, step) => {
                enter(next, &mut stage, &executor, &mut log).await;
                let outcome = Box::pin(executor.carry_out(step, &mut log)).await;
                procedure.handle(outcome, clock::now().instant);
                executor.save(&procedure, &mut log).await;
            }
            Next::Wait(next, until) => {
                enter(next, &mut stage, &executor, &mut log).await;
                sleep_until(until.into()).await;
                procedure.handle_timeout(clock::now().instant);
            }
            Next::Done(outcome) => break outcome,
        }
    };
    if let Err(failure) = &outcome {
        tracing::warn!(id = %log.id(), cause = %failure, "operation failed");
    }
    executor.close(&outcome).await;
    log.end(outcome.err().as_ref()).await;
}

/// Records the stage if it is a new one; a machine whose stages are over is done with.
async fn enter<E: Executor>(
    next: Option<Stage>,
    current: &mut Option<Stage>,
    executor: &E,
    log: &mut OperationLog,
) {
    let Some(next) = next.filter(|next| *current != Some(*next)) else {
        return;
    };
    let former = current.replace(next).and_then(|stage| stage.machine);
    if let Some(former) = former.filter(|former| next.machine != Some(*former)) {
        log.end_of(&executor.name_of(former));
    }
    match next.machine {
        Some(machine) => log.stage_of(&executor.name_of(machine), next.name).await,
        None => log.stage(next.name).await,
    }
}

/// Has a machine do its part of long work: this one by itself, another one by asking it.
///
/// # Errors
/// `TIMEOUT` after `patience`, and what the machine answers.
pub(crate) async fn ask_part<P>(
    here: &Machine,
    machine: MachineId,
    part: P,
    patience: Duration,
    own: impl AsyncFnOnce(P) -> Outcome,
    other: impl AsyncFnOnce(Client, P) -> Outcome,
) -> Result<Option<Payload>, Failure> {
    let asking = async {
        if machine == here.identity.machine_id {
            own(part).await
        } else {
            other(here.client()?, part).await
        }
    };
    let answer = timeout(patience, Box::pin(asking)).await;
    let late = |_| Failure::new(Code::Timeout, format!("no answer within {patience:?}"));
    Ok(answer.map_err(late)??.payload)
}

#[cfg(test)]
mod tests;
