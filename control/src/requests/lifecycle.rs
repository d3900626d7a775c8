//! What the operator wants of a machine: written to its record, whether it can be reached or not.

use ployz_api::{Failure, MachineLifecycle, Outcome, Payload, Success};
use ployz_core::Transition;

use crate::daemon::Daemon;
use crate::requests::records::{Changed, change, selected};
use crate::services::placement::void_claims;

pub(crate) async fn activate(daemon: &Daemon, wanted: &str) -> Outcome {
    set(daemon, wanted, Transition::Activate).await
}

pub(crate) async fn drain(daemon: &Daemon, wanted: &str) -> Outcome {
    set(daemon, wanted, Transition::Drain).await
}

pub(crate) async fn standby(daemon: &Daemon, wanted: &str, force: bool) -> Outcome {
    set(daemon, wanted, Transition::Standby { force }).await
}

async fn set(daemon: &Daemon, wanted: &str, transition: Transition) -> Outcome {
    let network = daemon.running_network()?;
    network.coordinator()?;
    let id = selected(daemon, wanted)?;
    let void = void_claims(&network.store, id).await?;
    let changed = change(&network.store, id, |record| {
        record.workloads.retain(|id, _| !void.contains(id));
        record.lifecycle = transition.apply(record).map_err(Failure::from)?;
        Ok(())
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
