//! What the operator wants of a machine: written to its record, whether it can be reached or not.

use ployz_api::{Failure, MachineLifecycle, Outcome, Payload, Success};
use ployz_core::Transition;

use crate::machine::Machine;
use crate::requests::machines::selected;
use crate::services::placement::void_claims;
use crate::store::records::{Changed, change};

pub(super) async fn activate(here: &Machine, wanted: &str) -> Outcome {
    set(here, wanted, Transition::Activate).await
}

pub(super) async fn drain(here: &Machine, wanted: &str) -> Outcome {
    set(here, wanted, Transition::Drain).await
}

pub(super) async fn standby(here: &Machine, wanted: &str, force: bool) -> Outcome {
    set(here, wanted, Transition::Standby { force }).await
}

async fn set(here: &Machine, wanted: &str, transition: Transition) -> Outcome {
    let network = here.running_network()?;
    let id = selected(here, wanted)?;
    let void = void_claims(&network.store, id).await?;
    let changed = change(&network.store, id, |record| {
        record.workloads.retain(|id, _| !void.contains(id));
        record.lifecycle = transition.apply(record)?;
        Ok::<_, Failure>(())
    });
    let Changed { before, after } = changed.await?;
    let (from, to, name) = (before.posture(), after.posture(), &after.name);
    let message = if before.lifecycle == after.lifecycle {
        format!("{name} is {to} already")
    } else {
        tracing::info!(%id, %name, %from, %to, "machine's lifecycle changed");
        format!("{name} was {from} and is {to}")
    };
    Ok(Success {
        message,
        payload: Some(Payload::MachineLifecycle(MachineLifecycle {
            id,
            from,
            to,
            workloads: u32::try_from(after.workloads.len()).unwrap_or(u32::MAX),
            holds: after.workloads.into_values().collect(),
        })),
    })
}
