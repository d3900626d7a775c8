//! Workloads: deployed, seen, removed.

use ployz_api::{
    Code, DeployRequest, Failure, InstanceId, MachineId, Name, Outcome, Payload, Success,
    WorkloadInspect, WorkloadList, WorkloadLogs, WorkloadName, WorkloadRow, WorkloadSpec,
};
use ployz_core::{InstanceRecord, MachineRecord, pick};

use crate::machine::Machine;
use crate::network::Network;
use crate::services::placement::{fits, instance_key, place, remove_service, service};
use crate::store::{MACHINES, Revised, WORKLOADS};

/// More do not fit into an answer.
const LOG_LINES_MAX: u32 = 10_000;

pub(super) async fn deploy(here: &Machine, request: DeployRequest) -> Outcome {
    let network = here.running_network()?;
    request.check().map_err(|error| {
        let workload = &request.workload;
        Failure::new(Code::InvalidArgument, format!("{workload}: {error}"))
    })?;
    let target = target(&network, request.machine.as_deref(), &request.spec).await?;
    let privileged = request.privileged;
    let placed = place(
        &network.store,
        &request.workload,
        request.spec,
        privileged,
        target,
    )
    .await?;
    let row = row(&network, target, placed.id, request.workload);
    let (workload, machine) = (&row.workload, &row.machine);
    tracing::info!(%workload, %machine, id = %row.id, privileged, "workload placed");
    // The audit trail keeps this message.
    let how = if privileged { ", privileged" } else { "" };
    Ok(Success {
        message: format!("{workload} is placed on {machine}{how}"),
        payload: Some(Payload::Workload(Box::new(row))),
    })
}

pub(super) fn list(here: &Machine) -> Outcome {
    let network = here.running_network()?;
    let view = network.view();
    let held = |machine: &MachineRecord| {
        let claims = machine.workloads.iter();
        let rows = claims.map(|(id, workload)| row(&network, machine.id, *id, workload.clone()));
        rows.collect::<Vec<_>>()
    };
    let mut rows: Vec<WorkloadRow> = view.machines().flat_map(held).collect();
    rows.sort_by(|a, b| (&a.workload, a.id).cmp(&(&b.workload, b.id)));
    Ok(Payload::WorkloadList(WorkloadList { rows }).into())
}

pub(super) async fn inspect(here: &Machine, workload: &WorkloadName) -> Outcome {
    let network = here.running_network()?;
    let found = service(&network.store, workload).await?.value;
    let key = instance_key(found.machine, found.id);
    let instance: Option<Revised<InstanceRecord>> = network.store.get(WORKLOADS, &key).await?;
    let InstanceRecord {
        spec, privileged, ..
    } = instance.map(|it| it.value).ok_or_else(|| {
        let message = format!("the placement of {workload} was interrupted");
        Failure::new(Code::WorkloadNotFound, message)
            .hint(format!("ployzctl workload rm {workload}"))
    })?;
    let row = row(&network, found.machine, found.id, workload.clone());
    Ok(Payload::WorkloadInspect(Box::new(WorkloadInspect {
        workload: row,
        created_at: found.created_at,
        program: spec.program,
        env: spec.env.into_keys().collect(),
        volumes: spec.volumes,
        publish: spec.publish,
        privileged,
    }))
    .into())
}

pub(super) async fn logs(here: &Machine, workload: WorkloadName, lines: u32) -> Outcome {
    let lines = lines.min(LOG_LINES_MAX);
    let lines = here.workloads.logs(&workload, lines).await?;
    Ok(Payload::WorkloadLogs(WorkloadLogs { workload, lines }).into())
}

pub(super) async fn remove(here: &Machine, workload: &WorkloadName) -> Outcome {
    let network = here.running_network()?;
    let found = service(&network.store, workload).await?.value;
    remove_service(&network.store, &found).await?;
    tracing::info!(%workload, id = %found.id, "workload removed");
    Ok(Success {
        message: format!("{workload} is removed; its volumes stay where they are"),
        payload: None,
    })
}

/// The machine that was named, or the best one.
async fn target(
    network: &Network,
    wanted: Option<&str>,
    spec: &WorkloadSpec,
) -> Result<MachineId, Failure> {
    let runtime = spec.program.runtime();
    if let Some(wanted) = wanted {
        let view = network.view();
        let machine = view.select(wanted)?;
        if !fits(&view, machine, runtime) {
            let message = format!(
                "{} does not run workloads of runtime {runtime}",
                machine.name
            );
            return Err(Failure::new(Code::Unsupported, message));
        }
        return Ok(machine.id);
    }
    // From the store and not from the view, which has not heard yet of what has just been placed.
    let machines: Vec<MachineRecord> = network.store.list(MACHINES).await?;
    let view = network.view();
    let picked = pick(machines.iter(), |machine| fits(&view, machine, runtime));
    picked.ok_or_else(|| {
        let message = format!("no active machine takes a workload of runtime {runtime}");
        Failure::new(Code::Conflict, message)
            .hint("ployzctl machine ls, then ployzctl machine activate <machine>")
    })
}

fn row(
    network: &Network,
    machine: MachineId,
    id: InstanceId,
    workload: WorkloadName,
) -> WorkloadRow {
    let view = network.view();
    let name = view.machine(machine).map(|record| record.name.clone());
    WorkloadRow {
        workload,
        id,
        machine: name.unwrap_or_else(|| Name::nearest(&machine.to_string())),
        machine_id: machine,
        state: network.instance_state(machine, id),
    }
}
