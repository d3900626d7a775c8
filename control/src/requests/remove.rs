//! Taking a machine out of the network, without asking it.
//!
//! One write does it: the record is deleted, by compare-and-set. Everything else follows from that record's absence, on
//! every machine by itself: peers, the store's users, who is let in with a certificate, and when its name and subnet are
//! free again. So a coordinator that dies halfway has removed the machine or has not.

use std::time::Duration;

use ployz_api::{CleanupStep, Code, Failure, MachineId, MachineRemove, Outcome, Payload, Success};
use ployz_core::{MachineRecord, may_remove};

use super::machines::{not_selected, peer, traffic};
use crate::clock;
use crate::daemon::Daemon;
use crate::network::{Network, is_session};
use crate::store::{MACHINES, OBSERVED, Revised};

/// The news of it takes milliseconds; a watch that has died is noticed later than this.
const FORGET_WAIT: Duration = Duration::from_secs(2);

pub(super) async fn remove(daemon: &Daemon, wanted: &str, force: bool) -> Outcome {
    let network = daemon.running_network()?;
    network.coordinator()?;
    let traffic = traffic(daemon, clock::now().instant).await?;
    let (id, name) = {
        let view = network.view();
        let target = view.select(wanted).map_err(not_selected)?;
        may_remove(
            daemon.identity.machine_id,
            target,
            view.machines(),
            |other| {
                let peer = view
                    .machine(other)
                    .and_then(|machine| peer(&traffic, machine));
                is_session(peer.and_then(|peer| peer.handshake_age_secs))
            },
        )?;
        (target.id, target.name.clone())
    };
    if !force {
        let message = format!("this version cannot clean up on {name} itself");
        return Err(Failure::new(Code::Unsupported, message).hint(format!(
            "ployzctl machine rm --force --yes {name} (then its data directory can be deleted there)"
        )));
    }
    delete_record(&network, id).await?;
    tracing::info!(%id, %name, "machine removed");
    let cleanup = vec![
        step("record", Ok("deleted".to_owned())),
        step("observed", delete_observed(&network, id).await),
        step("credentials and peer", forgotten(&network, id).await),
    ];
    Ok(Success {
        message: format!("{name} is out of the network"),
        payload: Some(Payload::MachineRemove(MachineRemove { id, force, cleanup })),
    })
}

async fn delete_record(network: &Network, id: MachineId) -> Result<(), Failure> {
    let key = id.to_string();
    let found: Option<Revised<MachineRecord>> = network.store.get(MACHINES, &key).await?;
    let Some(Revised { revision, .. }) = found else {
        let message = format!("machine {id} has just been removed by somebody else");
        return Err(Failure::new(Code::MachineNotFound, message).hint("ployzctl machine ls"));
    };
    if network.store.delete(MACHINES, &key, Some(revision)).await? {
        return Ok(());
    }
    let message = format!("the record of machine {id} is being changed by somebody else");
    Err(Failure::new(Code::Conflict, message).hint("run the same command again"))
}

async fn delete_observed(network: &Network, id: MachineId) -> Result<String, Failure> {
    let key = id.to_string();
    network.store.delete(OBSERVED, &key, None).await?;
    Ok("deleted".to_owned())
}

/// Waits until this machine has drawn the consequences; the others do so by themselves.
async fn forgotten(network: &Network, id: MachineId) -> Result<String, Failure> {
    tokio::time::timeout(FORGET_WAIT, network.forgotten(id))
        .await
        .map(|()| "refused from now on".to_owned())
        .map_err(|_| {
            let message = format!(
                "this machine has not heard of it within {FORGET_WAIT:?}; it will with the next listing"
            );
            Failure::new(Code::Timeout, message)
        })
}

fn step(step: &str, done: Result<String, Failure>) -> CleanupStep {
    CleanupStep {
        step: step.to_owned(),
        ok: done.is_ok(),
        message: done.unwrap_or_else(|failure| failure.message),
    }
}
