//! What a coordinator has left that died in the middle of a migration.

use std::rc::Rc;
use std::time::Duration;

use ployz_api::{Code, Failure, InstanceId, MachineId, WorkloadName, WorkloadState};
use ployz_core::{MachineRecord, ServiceRecord};
use tokio::time::{Instant, sleep};

use crate::machine::Machine;
use crate::network::Network;
use crate::services::placement::{release, release_anywhere, service, service_key};
use crate::store::{Revised, WORKLOADS};

/// At 10 MB/s, 36 GB of volumes.
const COPY_WAIT: Duration = Duration::from_secs(3_600);
/// How long the new machine may take to report the instance at all.
const START_WAIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

/// Ends what the daemon before this one has left.
pub(crate) async fn resume(here: Rc<Machine>, network: Rc<Network>) {
    if network.storage.is_some() {
        for service in left_over(&network).await {
            let workload = &service.workload;
            let Ok(_moving) = here.workloads.begin_to_move(workload) else {
                continue;
            };
            match Box::pin(conclude(&network, &service)).await {
                Ok(()) => tracing::info!(%workload, "interrupted migration resolved"),
                Err(failure) => {
                    tracing::warn!(%workload, cause = %failure, "interrupted migration not resolved");
                }
            }
        }
    }
}

/// What is to be another instance, as far as anybody has got.
async fn left_over(network: &Network) -> Vec<ServiceRecord> {
    loop {
        let services = network.store.read::<ServiceRecord>(WORKLOADS, "service.>");
        match services.await {
            // The view has to be there as well.
            Ok(mut services) if network.own_claims().is_some() => {
                services.retain(|service| service.next.is_some());
                return services;
            }
            Ok(_) | Err(_) => sleep(POLL).await,
        }
    }
}

async fn conclude(network: &Network, service: &ServiceRecord) -> Result<(), Failure> {
    let holder = {
        let view = network.view();
        let holds = |it: &&MachineRecord| {
            service
                .next
                .is_some_and(|id| it.workloads.contains_key(&id))
        };
        view.machines().find(holds).map(|it| it.id)
    };
    if let (Some(holder), Some(next)) = (holder, service.next) {
        // If it never runs, it is undone.
        wait_running(network, holder, next).await;
    }
    reconcile(network, &service.workload).await
}

/// Ends what a coordinator has left that died over it: if the new instance runs, it has what the old one had, and more.
pub(super) async fn reconcile(network: &Network, workload: &WorkloadName) -> Result<(), Failure> {
    let Revised {
        value: old,
        revision,
    } = service(&network.store, workload).await?;
    let Some(next) = old.next else {
        return Ok(());
    };
    let holder = {
        let view = network.view();
        let holder = view.machines().find(|it| it.workloads.contains_key(&next));
        let holder = holder.filter(|it| runs(network.instance_state(it.id, next)));
        holder.map(|it| it.id)
    };
    let reconciled = ServiceRecord {
        id: holder.map_or(old.id, |_| next),
        machine: holder.unwrap_or(old.machine),
        next: None,
        ..old.clone()
    };
    let key = service_key(workload);
    if !network
        .store
        .update(WORKLOADS, &key, &reconciled, revision)
        .await?
    {
        return Err(overtaken(&old));
    }
    match holder {
        Some(_) => release(&network.store, old.machine, old.id).await,
        None => release_anywhere(&network.store, next).await,
    }
}

/// Waits until the instance runs, or it is clear that it does not.
async fn wait_running(network: &Network, machine: MachineId, id: InstanceId) {
    let (deadline, heard_by) = (Instant::now() + COPY_WAIT, Instant::now() + START_WAIT);
    loop {
        let state = network.instance_state(machine, id);
        let is_silent = state == WorkloadState::Unknown && Instant::now() >= heard_by;
        let is_over = runs(state) || state == WorkloadState::Waiting || is_silent;
        if is_over || Instant::now() >= deadline {
            return;
        }
        sleep(POLL).await;
    }
}

const fn runs(state: WorkloadState) -> bool {
    matches!(state, WorkloadState::Running | WorkloadState::Exited)
}

/// Another coordinator has changed the workload.
pub(super) fn overtaken(service: &ServiceRecord) -> Failure {
    let message = format!("another request has changed {} meanwhile", service.workload);
    Failure::new(Code::Conflict, message).hint("ployzctl workload ls")
}
