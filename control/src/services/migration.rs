//! Moving a workload to another machine.
//!
//! ```text
//!   prepare   the new instance is written down, and the new machine claims it
//!   copy      the old one ends, if it has volumes, and the new machine fetches them
//!   start     the new one has to run for a while
//!   cut over  the workload is the new one, by compare-and-set
//!   release   the old machine holds it no more
//! ```
//!
//! Until the cut, the old machine holds its instance and its volumes. Whatever fails before, the new claim is taken back, and
//! the old machine starts what it had ended, because nobody else is to run it. The claims say it all: a machine that holds an
//! instance of a workload of which another holds a newer one ends it.

use std::rc::Rc;
use std::time::Duration;

use ployz_api::{
    Code, Failure, InstanceId, MachineId, MigrateApply, MigratePreview, MigrateRequest, Name,
    Outcome, Payload, Success, WorkloadName, WorkloadState,
};
use ployz_core::{InstanceRecord, MachineRecord, ServiceRecord, may_place};
use tokio::time::{Instant, sleep};

use crate::host::clock;
use crate::machine::Machine;
use crate::network::Network;
use crate::services::placement::{
    claim, fits, instance_key, instruct, release, release_anywhere, service, service_key,
};
use crate::store::operations::OperationLog;
use crate::store::{MACHINES, Revised, WORKLOADS};

const STAGES: [&str; 5] = ["prepare", "copy", "start", "cut over", "release"];
/// What ends at once has ended by then, and its machine has said so.
const STEADY: Duration = Duration::from_secs(3);
/// How long the new machine may take to say that it has heard of it, and to start it.
const START_WAIT: Duration = Duration::from_secs(60);
/// At 10 MB/s, 36 GB.
const COPY_WAIT: Duration = Duration::from_secs(3_600);
const POLL: Duration = Duration::from_millis(200);

/// What is to be done.
struct Plan {
    service: Revised<ServiceRecord>,
    instance: InstanceRecord,
    from: Name,
    to: MachineRecord,
}

pub(crate) async fn preview(here: &Machine, request: &MigrateRequest) -> Outcome {
    let network = here.running_network()?;
    let plan = plan(&network, request).await?;
    let volumes: Vec<Name> = plan.instance.spec.volumes.into_keys().collect();
    let (workload, from, to) = (&request.workload, plan.from, plan.to.name);
    let cost = if volumes.is_empty() {
        "it runs there before it ends here".to_owned()
    } else {
        let names: Vec<&str> = volumes.iter().map(Name::as_str).collect();
        format!(
            "nothing runs while its volumes are copied: {}",
            names.join(", ")
        )
    };
    Ok(Success {
        message: format!("{workload} would move from {from} to {to}; {cost}"),
        payload: Some(Payload::MigratePreview(MigratePreview {
            workload: workload.clone(),
            from,
            to,
            volumes,
            stages: STAGES.map(str::to_owned).to_vec(),
        })),
    })
}

pub(crate) async fn apply(here: &Machine, request: &MigrateRequest) -> Outcome {
    let network = here.running_network()?;
    network.coordinator()?;
    let workload = request.workload.clone();
    let moving = here.workloads.begin_to_move(&workload)?;
    settle(&network, &workload).await?;
    let plan = plan(&network, request).await?;
    let (unix_ms, random) = clock::id_parts();
    let id = InstanceId::new(unix_ms, random);
    let answer = |operation_id| MigrateApply {
        operation_id,
        workload: workload.clone(),
        from: plan.service.value.machine,
        to: plan.to.id,
        id,
    };
    let again = format!("ployzctl migrate apply {workload} --to {}", plan.to.name);
    let target = workload.to_string();
    let work = OperationLog::begin(
        here.identity.machine_id,
        &network.store,
        "migrate",
        target,
        &again,
    );
    let payload = Payload::MigrateApply(answer(work.id()));
    let message = format!("{workload} moves from {} to {}", plan.from, plan.to.name);
    tracing::info!(%workload, from = %plan.from, to = %plan.to.name, "workload moves");
    here.operations.spawn(async move {
        let (_moving, mut work) = (moving, work);
        let moved = Box::pin(go(&network, plan, id, &mut work)).await;
        work.end(moved.as_ref().err()).await;
    });
    Ok(Success {
        message,
        payload: Some(payload),
    })
}

async fn plan(network: &Rc<Network>, request: &MigrateRequest) -> Result<Plan, Failure> {
    network.coordinator()?;
    let workload = &request.workload;
    let service = service(&network.store, workload).await?;
    let (from, id) = (service.value.machine, service.value.id);
    let to = {
        let view = network.view();
        view.select(&request.to)?.clone()
    };
    // The view may not have heard of it yet.
    let found: Option<Revised<MachineRecord>> =
        network.store.get(MACHINES, &from.to_string()).await?;
    let holder = found
        .map(|it| it.value)
        .filter(|it| it.workloads.contains_key(&id));
    let from = holder.map(|it| it.name).ok_or_else(|| {
        let message = format!("no machine holds {workload}");
        Failure::new(Code::WorkloadNotFound, message).hint("ployzctl workload ls")
    })?;
    if to.id == service.value.machine {
        let message = format!("{workload} is on {from} already");
        return Err(Failure::new(Code::Conflict, message));
    }
    may_place(&to)?;
    let key = instance_key(service.value.machine, id);
    let instance: Option<Revised<InstanceRecord>> = network.store.get(WORKLOADS, &key).await?;
    let instance = instance.map(|it| it.value).ok_or_else(|| {
        let message = format!("{workload} was never placed to the end");
        Failure::new(Code::WorkloadNotFound, message)
    })?;
    let runtime = instance.spec.program.runtime();
    if !fits(&network.view(), &to, runtime) {
        let message = format!("{} does not run workloads of runtime {runtime}", to.name);
        return Err(Failure::new(Code::Unsupported, message));
    }
    Ok(Plan {
        service,
        instance,
        from,
        to,
    })
}

/// Ends what the daemon before this one has left.
pub(crate) async fn resume(here: Rc<Machine>, network: Rc<Network>) {
    if network.storage.is_some() {
        for service in left_over(&network).await {
            let workload = &service.workload;
            let Ok(_moving) = here.workloads.begin_to_move(workload) else {
                continue;
            };
            match Box::pin(conclude(&network, &service)).await {
                Ok(()) => tracing::info!(%workload, "a migration was ended"),
                Err(failure) => tracing::warn!(%workload, cause = %failure, "half a migration"),
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
        let runs = |state| matches!(state, WorkloadState::Running | WorkloadState::Exited);
        // If it never does, it is undone.
        let _said_by_its_state = wait_for(network, holder, next, COPY_WAIT, runs).await;
    }
    settle(network, &service.workload).await
}

/// Ends what a coordinator has left that died over it: if the new instance runs, it has what the old one had, and more.
async fn settle(network: &Network, workload: &WorkloadName) -> Result<(), Failure> {
    let Revised {
        value: old,
        revision,
    } = service(&network.store, workload).await?;
    let Some(next) = old.next else {
        return Ok(());
    };
    let runs = |state| matches!(state, WorkloadState::Running | WorkloadState::Exited);
    let holder = {
        let view = network.view();
        let holder = view.machines().find(|it| it.workloads.contains_key(&next));
        let holder = holder.filter(|it| runs(network.instance_state(it.id, next)));
        holder.map(|it| it.id)
    };
    let settled = ServiceRecord {
        id: holder.map_or(old.id, |_| next),
        machine: holder.unwrap_or(old.machine),
        next: None,
        ..old.clone()
    };
    let key = service_key(workload);
    if !network
        .store
        .update(WORKLOADS, &key, &settled, revision)
        .await?
    {
        return Err(outrun(&old));
    }
    match holder {
        Some(_) => release(&network.store, old.machine, old.id).await,
        None => release_anywhere(&network.store, next).await,
    }
}

async fn go(
    network: &Network,
    plan: Plan,
    id: InstanceId,
    work: &mut OperationLog,
) -> Result<(), Failure> {
    let (store, to) = (&network.store, plan.to.id);
    let old = plan.service.value;
    work.stage(STAGES[0]).await;
    let announced = ServiceRecord {
        next: Some(id),
        ..old.clone()
    };
    let key = service_key(&old.workload);
    if !store
        .update(WORKLOADS, &key, &announced, plan.service.revision)
        .await?
    {
        return Err(outrun(&old));
    }
    let moved = async {
        let new = ServiceRecord {
            id,
            machine: to,
            ..old.clone()
        };
        instruct(store, &new, plan.instance.spec, Some(old.machine)).await?;
        claim(store, to, id, &old.workload).await?;
        work.stage(STAGES[1]).await;
        let is_copied = |state| !matches!(state, WorkloadState::Unknown | WorkloadState::Copying);
        wait_for(network, to, id, COPY_WAIT, is_copied).await?;
        work.stage(STAGES[2]).await;
        wait_steady(network, to, id).await?;
        work.stage(STAGES[3]).await;
        cut_over(network, &new, id).await
    };
    if let Err(failure) = moved.await {
        undo(network, &old, to, id).await;
        return Err(failure);
    }
    work.stage(STAGES[4]).await;
    release(store, old.machine, old.id).await
}

/// Waits until the new machine says so of the new instance; that it has failed is the end.
async fn wait_for(
    network: &Network,
    machine: MachineId,
    id: InstanceId,
    patience: Duration,
    is_so: impl Fn(WorkloadState) -> bool,
) -> Result<WorkloadState, Failure> {
    let (deadline, heard_by) = (Instant::now() + patience, Instant::now() + START_WAIT);
    loop {
        let now = network.instance_state(machine, id);
        if now == WorkloadState::Waiting {
            let message = "it does not run there: its volumes cannot be had, or it ends at once";
            return Err(Failure::new(Code::Conflict, message).hint(format!(
                "ployzctl machine inspect {machine}, and its daemon's log"
            )));
        }
        if is_so(now) {
            return Ok(now);
        }
        let is_silent = now == WorkloadState::Unknown && Instant::now() >= heard_by;
        if is_silent || Instant::now() >= deadline {
            let message = if is_silent {
                format!("the new machine has said nothing of it for {START_WAIT:?}")
            } else {
                format!("the new machine says only that it is {now}")
            };
            return Err(
                Failure::new(Code::Timeout, message).hint(format!("ployzctl doctor {machine}"))
            );
        }
        sleep(POLL).await;
    }
}

/// Waits until the new one runs, and has for a while, or has ended well.
async fn wait_steady(network: &Network, machine: MachineId, id: InstanceId) -> Result<(), Failure> {
    let runs = |state| matches!(state, WorkloadState::Running | WorkloadState::Exited);
    wait_for(network, machine, id, START_WAIT, runs).await?;
    let since = Instant::now();
    while since.elapsed() < STEADY {
        sleep(POLL).await;
        wait_for(network, machine, id, START_WAIT, runs).await?;
    }
    Ok(())
}

async fn cut_over(network: &Network, new: &ServiceRecord, id: InstanceId) -> Result<(), Failure> {
    let key = service_key(&new.workload);
    let found = service(&network.store, &new.workload).await?;
    let is_ours = found.value.next == Some(id);
    if is_ours
        && network
            .store
            .update(WORKLOADS, &key, new, found.revision)
            .await?
    {
        return Ok(());
    }
    Err(outrun(new))
}

/// The old machine goes on by itself once the new one does not claim it any more.
async fn undo(network: &Network, old: &ServiceRecord, to: MachineId, id: InstanceId) {
    let undone = async {
        release(&network.store, to, id).await?;
        let found = service(&network.store, &old.workload).await?;
        if found.value.next == Some(id) {
            let key = service_key(&old.workload);
            network
                .store
                .update(WORKLOADS, &key, old, found.revision)
                .await?;
        }
        Ok::<(), Failure>(())
    };
    if let Err(failure) = undone.await {
        // The next attempt, and a removal, begin with that.
        tracing::warn!(workload = %old.workload, cause = %failure, "a migration is not undone");
    }
}

fn outrun(service: &ServiceRecord) -> Failure {
    let message = format!("somebody else has changed {} meanwhile", service.workload);
    Failure::new(Code::Conflict, message).hint("ployzctl workload ls")
}
