//! Moving a workload to another machine. `ployz_core::MigrationProcedure` decides; this carries its steps out.
//!
//! The claims say it all: a machine that holds an instance of a workload of which another holds a newer one ends it.

mod coordinator;
mod leftovers;

use std::rc::Rc;

use ployz_api::{
    Code, Failure, InstanceId, MigrateApply, MigratePreview, MigrateRequest, Name, Outcome,
    Payload, Success,
};
use ployz_core::{InstanceRecord, MachineRecord, MigrationProcedure, ServiceRecord, may_place};

use crate::host::clock;
use crate::machine::Machine;
use crate::network::Network;
use crate::services::placement::{fits, instance_key, service};
use crate::services::runner::start;
use crate::store::operations::OperationLog;
use crate::store::{MACHINES, Revised, WORKLOADS};
use coordinator::Coordinator;
use leftovers::reconcile;

pub(crate) use leftovers::resume;

/// A migration, planned.
#[derive(Debug)]
struct Plan {
    service: Revised<ServiceRecord>,
    instance: InstanceRecord,
    from: Name,
    to: MachineRecord,
}

/// Says what a migration would do.
///
/// # Errors
/// What stands in its way.
pub(crate) async fn preview(here: &Machine, request: &MigrateRequest) -> Outcome {
    let network = here.running_network()?;
    let plan = plan(&network, request).await?;
    let volumes: Vec<Name> = plan.instance.spec.volumes.into_keys().collect();
    let (workload, from, to) = (&request.workload, plan.from, plan.to.name);
    let cost = if volumes.is_empty() {
        "the new instance starts before the former one ends".to_owned()
    } else {
        let names: Vec<&str> = volumes.iter().map(Name::as_str).collect();
        format!(
            "the workload is down while its volumes are copied: {}",
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
            stages: MigrationProcedure::STAGES.map(str::to_owned).to_vec(),
        })),
    })
}

/// Begins a migration: it goes on after this returns.
///
/// # Errors
/// `BUSY` if the workload is being moved, and what else stands in its way.
pub(crate) async fn apply(here: &Machine, request: &MigrateRequest) -> Outcome {
    let network = here.running_network()?;
    let workload = request.workload.clone();
    let moving = here.workloads.begin_to_move(&workload)?;
    reconcile(&network, &workload).await?;
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
    let log = OperationLog::begin(
        here.identity.machine_id,
        &network.store,
        "migrate",
        target,
        &again,
    );
    let payload = Payload::MigrateApply(answer(log.id()));
    let message = format!("{workload} moves from {} to {}", plan.from, plan.to.name);
    tracing::info!(%workload, from = %plan.from, to = %plan.to.name, "migration started");
    let procedure = MigrationProcedure::new(plan.to.id);
    let coordinator = Coordinator {
        network,
        service: plan.service,
        privileged: plan.instance.privileged,
        spec: Some(plan.instance.spec),
        to: plan.to.id,
        id,
        _moving: moving,
    };
    start(here, procedure, coordinator, log);
    Ok(Success {
        message,
        payload: Some(payload),
    })
}

async fn plan(network: &Rc<Network>, request: &MigrateRequest) -> Result<Plan, Failure> {
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
        let message = format!("the placement of {workload} was interrupted");
        Failure::new(Code::WorkloadNotFound, message)
            .hint(format!("ployzctl workload rm {workload}"))
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
