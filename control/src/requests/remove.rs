//! Taking a machine out of the network: it cleans up, unless it is not to be asked, and then nobody knows it any more.
//!
//! One write does the latter: the record is deleted, by compare-and-set. Everything else follows from that record's
//! absence, on every machine by itself: peers, the store's users, who is let in with a certificate, and when its name
//! and subnet are free again. So a coordinator that dies halfway has removed the machine or has not; one that dies
//! after the machine has cleaned up leaves a record that takes `force`.

use std::collections::BTreeMap;
use std::time::Duration;

use ployz_api::{
    CleanupStep, Code, Failure, InstanceId, MachineId, MachineRemove, Name, Outcome, Payload,
    Request, Success, WorkloadName,
};
use ployz_core::{MachineRecord, may_remove};

use crate::host::clock;
use crate::machine::{Machine, peer};
use crate::network::{Network, is_session};
use crate::requests::asker::Asker;
use crate::services::placement::{release, remove_service, service};
use crate::services::retiring::{decision, step};
use crate::store::{MACHINES, OBSERVED, Revised};

/// The news of it takes milliseconds; a watch that has died is noticed later than this.
const REFUSAL_WAIT: Duration = Duration::from_secs(2);

/// A machine that has cleaned up is not to stay because somebody changes a label of it.
const ATTEMPTS: usize = 5;
/// What stops and takes away what is there, each step with a deadline of its own, and still less than a request may
/// take.
const CLEANUP_WAIT: Duration = Duration::from_secs(90);

pub(super) async fn remove(here: &Machine, asker: Asker, wanted: &str, force: bool) -> Outcome {
    let network = here.running_network()?;
    let own = here.identity.machine_id;
    let traffic = here.traffic(clock::now().instant).await?;
    let (id, name) = {
        let view = network.view();
        let target = view.select(wanted)?;
        may_remove(
            own,
            asker.sits_at(own, target),
            force,
            target,
            network.membership.store.len(),
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
    let mut cleanup = if force {
        Vec::new()
    } else {
        clean_up(here, id, &name).await?
    };
    let held = delete_record(&network, id).await?.workloads;
    tracing::info!(%id, %name, "machine removed");
    cleanup.extend([
        step("record", Ok("deleted".to_owned())),
        step(
            "workload records",
            delete_workloads(&network, id, &held).await,
        ),
        step("observed", delete_observed(&network, id).await),
        step("credentials and peer", await_refusal(&network, id).await),
    ]);
    Ok(Success {
        message: format!("{name} is removed from the network"),
        payload: Some(Payload::MachineRemove(MachineRemove { id, force, cleanup })),
    })
}

/// Has the machine itself do its part. All of it has to be done before its record goes: without one nobody could ask
/// again.
async fn clean_up(here: &Machine, id: MachineId, name: &Name) -> Result<Vec<CleanupStep>, Failure> {
    let mend = format!("ployzctl machine rm --force {name}");
    let session = here
        .client()?
        .reach(id)
        .await
        .map_err(|error| Failure::from(error).hint(&mend))?;
    let request = Request::MachineRetire {
        decision: Some(decide(here, id)?),
    };
    let asking = async {
        let mut answers = session.open(&request).await?;
        answers.next().await
    };
    let lost = |cause: String| {
        let message = format!("{name} may not have cleaned up: {cause}");
        Failure::new(Code::MachineUnreachable, message).hint(&mend)
    };
    let answer = tokio::time::timeout(CLEANUP_WAIT, asking)
        .await
        .map_err(|_| lost(format!("no answer within {CLEANUP_WAIT:?}")))?
        .map_err(|error| lost(error.to_string()))?
        .ok_or_else(|| lost("the connection was closed".to_owned()))?;
    match Outcome::from(answer)?.payload {
        Some(Payload::MachineRetired(retired)) => all_done(name, retired.cleanup, mend),
        Some(_) | None => Err(lost("the answer was unexpected".to_owned())),
    }
}

/// The network's decision, which the machine checks for itself.
fn decide(here: &Machine, id: MachineId) -> Result<String, Failure> {
    let network = here.running_network()?;
    let storage = network.require_storage()?;
    let view = network.view();
    let target = view.select(&id.to_string())?;
    let decision = decision(network.membership.network_id, target);
    Ok(storage.authority.sign(&decision)?)
}

fn all_done(
    name: &Name,
    cleanup: Vec<CleanupStep>,
    mend: String,
) -> Result<Vec<CleanupStep>, Failure> {
    if cleanup.iter().all(|step| step.ok) {
        return Ok(cleanup);
    }
    let results: Vec<String> = cleanup
        .into_iter()
        .map(|step| {
            let result = if step.ok { "done" } else { "failed" };
            format!("{} {result}: {}", step.step, step.message)
        })
        .collect();
    let message = format!(
        "{name} stays in the network, as its cleanup failed: {}",
        results.join("; ")
    );
    Err(Failure::new(Code::Internal, message).hint(format!(
        "repair it on {name} and run the same command again, or {mend}"
    )))
}

/// What it said in the end.
async fn delete_record(network: &Network, id: MachineId) -> Result<MachineRecord, Failure> {
    let key = id.to_string();
    for _ in 0..ATTEMPTS {
        let found: Option<Revised<MachineRecord>> = network.store.get(MACHINES, &key).await?;
        let Some(Revised { value, revision }) = found else {
            let message = format!("another request has just removed machine {id}");
            return Err(Failure::new(Code::MachineNotFound, message).hint("ployzctl machine ls"));
        };
        if network.store.delete(MACHINES, &key, Some(revision)).await? {
            return Ok(value);
        }
    }
    let message = format!("other requests keep changing the record of machine {id}");
    Err(Failure::new(Code::Conflict, message)
        .hint("run the same command again, with --force if the machine has left already"))
}

/// What it was to run is nobody's any more.
async fn delete_workloads(
    network: &Network,
    id: MachineId,
    held: &BTreeMap<InstanceId, WorkloadName>,
) -> Result<String, Failure> {
    for (instance, workload) in held {
        match service(&network.store, workload).await {
            Ok(found) if found.value.id == *instance => {
                remove_service(&network.store, &found.value).await?;
            }
            // Another machine has it by now.
            Ok(_) => release(&network.store, id, *instance).await?,
            Err(failure) if failure.code == Code::WorkloadNotFound => {
                release(&network.store, id, *instance).await?;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(format!("{} deleted", held.len()))
}

async fn delete_observed(network: &Network, id: MachineId) -> Result<String, Failure> {
    let key = id.to_string();
    network.store.delete(OBSERVED, &key, None).await?;
    Ok("deleted".to_owned())
}

/// Waits until this machine has drawn the consequences; the others do so by themselves.
async fn await_refusal(network: &Network, id: MachineId) -> Result<String, Failure> {
    tokio::time::timeout(REFUSAL_WAIT, network.expelled(id))
        .await
        .map(|()| "refused from now on".to_owned())
        .map_err(|_| {
            let message = format!(
                "the removal is not in the view of this machine after {REFUSAL_WAIT:?}; the next full read brings it"
            );
            Failure::new(Code::Timeout, message)
        })
}
