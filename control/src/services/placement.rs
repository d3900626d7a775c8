//! Placing workloads on machines.
//!
//! ```text
//!   service   what it is called, and where it is to be       ┐
//!   instance  what that machine is to run                    ├─ written in this order, undone in the other
//!   claim     in the machine's record, if that is active     ┘
//! ```
//!
//! The claim is what counts. It is written by compare-and-set to the very record that says whether the machine is
//! active: a placement and a drain exclude one another. A coordinator that dies before it leaves a name that nobody
//! holds, which the next one to deploy takes over; one that dies after it has placed the workload.

use std::collections::BTreeSet;

use ployz_api::{Code, Failure, InstanceId, MachineId, WorkloadName, WorkloadSpec};
use ployz_core::{
    HELD_MAX, InstanceRecord, MachineRecord, RECORD_VERSION, ServiceRecord, View, may_place,
    void_claims as void,
};

use crate::host::clock;
use crate::store::records::{Changed, change};
use crate::store::{MACHINES, Revised, Store, StoreError, WORKLOADS};

/// Writes a workload down and has a machine claim it. Nothing is left if that fails.
pub(crate) async fn place(
    store: &Store,
    workload: &WorkloadName,
    spec: WorkloadSpec,
    privileged: bool,
    machine: MachineId,
) -> Result<ServiceRecord, Failure> {
    let (unix_ms, random) = clock::id_parts();
    let service = ServiceRecord {
        version: RECORD_VERSION,
        workload: workload.clone(),
        id: InstanceId::new(unix_ms, random),
        machine,
        next: None,
        created_at: store.unix_secs().await?,
    };
    claim_name(store, &service).await?;
    let placed = async {
        instruct(store, &service, spec, privileged, None).await?;
        claim(store, machine, service.id, workload).await?;
        check_current(store, &service).await
    };
    if let Err(failure) = placed.await {
        // What cannot be undone now is void, and does not keep the name.
        let _void = remove_service(store, &service).await;
        return Err(failure);
    }
    Ok(service)
}

/// The workload of this name.
pub(crate) async fn service(
    store: &Store,
    workload: &WorkloadName,
) -> Result<Revised<ServiceRecord>, Failure> {
    let found = store.get(WORKLOADS, &service_key(workload)).await?;
    found.ok_or_else(|| {
        let message = format!("there is no workload {workload}");
        Failure::new(Code::WorkloadNotFound, message).hint("ployzctl workload ls")
    })
}

/// Takes a workload away, the claim first.
pub(crate) async fn remove_service(store: &Store, service: &ServiceRecord) -> Result<(), Failure> {
    if let Some(next) = service.next {
        release_anywhere(store, next).await?;
    }
    release(store, service.machine, service.id).await?;
    let key = service_key(&service.workload);
    let found: Option<Revised<ServiceRecord>> = store.get(WORKLOADS, &key).await?;
    if let Some(found) = found.filter(|found| found.value.id == service.id) {
        // Whoever was faster has taken the name over.
        store.delete(WORKLOADS, &key, Some(found.revision)).await?;
    }
    Ok(())
}

/// Has a machine hold an instance no more, and forgets what it was.
pub(crate) async fn release(
    store: &Store,
    machine: MachineId,
    id: InstanceId,
) -> Result<(), Failure> {
    let released = change(store, machine, |record| {
        record.workloads.remove(&id);
        Ok(())
    });
    match released.await {
        // A machine that was removed holds nothing.
        Ok(Changed { .. }) | Err(StoreError::MachineRemoved(_)) => {}
        Err(error) => return Err(error.into()),
    }
    store
        .delete(WORKLOADS, &instance_key(machine, id), None)
        .await?;
    Ok(())
}

/// The same, whichever machine holds it.
pub(crate) async fn release_anywhere(store: &Store, id: InstanceId) -> Result<(), Failure> {
    let machines: Vec<MachineRecord> = store.list(MACHINES).await?;
    let holder = machines.iter().find(|it| it.workloads.contains_key(&id));
    match holder {
        Some(machine) => release(store, machine.id, id).await,
        None => Ok(()),
    }
}

/// What a machine claims and no workload is.
pub(crate) async fn void_claims(
    store: &Store,
    machine: MachineId,
) -> Result<BTreeSet<InstanceId>, Failure> {
    let found: Option<Revised<MachineRecord>> = store.get(MACHINES, &machine.to_string()).await?;
    let claims = found.map(|found| found.value.workloads).unwrap_or_default();
    if claims.is_empty() {
        return Ok(BTreeSet::new());
    }
    // After the claims, or one that has just been made would look void.
    let services: Vec<ServiceRecord> = store.read(WORKLOADS, "service.>").await?;
    Ok(void(&claims, &services))
}

/// Has a machine hold an instance, if it takes any.
pub(crate) async fn claim(
    store: &Store,
    machine: MachineId,
    id: InstanceId,
    workload: &WorkloadName,
) -> Result<(), Failure> {
    let claimed = change(store, machine, |record| {
        may_place(record)?;
        if record.workloads.len() >= HELD_MAX {
            let message = format!(
                "{} holds {HELD_MAX} workloads, the maximum of a machine",
                record.name
            );
            return Err(Failure::new(Code::Conflict, message));
        }
        record.workloads.insert(id, workload.clone());
        Ok(())
    });
    claimed.await.map(drop)
}

/// Writes down what a machine is to run, and from which one its volumes come.
pub(crate) async fn instruct(
    store: &Store,
    service: &ServiceRecord,
    spec: WorkloadSpec,
    privileged: bool,
    from: Option<MachineId>,
) -> Result<(), Failure> {
    let record = InstanceRecord {
        from,
        version: RECORD_VERSION,
        workload: service.workload.clone(),
        id: service.id,
        spec,
        privileged,
    };
    let key = instance_key(service.machine, service.id);
    store.create(WORKLOADS, &key, &record).await?;
    Ok(())
}

/// Takes the name, from nobody or from somebody who never got a machine to hold it.
async fn claim_name(store: &Store, service: &ServiceRecord) -> Result<(), Failure> {
    let key = service_key(&service.workload);
    if store.create(WORKLOADS, &key, service).await? {
        return Ok(());
    }
    let taken = || {
        let message = format!("workload {} exists already", service.workload);
        Failure::new(Code::Conflict, message)
            .hint(format!("ployzctl workload rm {}", service.workload))
    };
    let found: Option<Revised<ServiceRecord>> = store.get(WORKLOADS, &key).await?;
    let Revised { value, revision } = found.ok_or_else(taken)?;
    if is_held(store, &value).await? || !store.update(WORKLOADS, &key, service, revision).await? {
        return Err(taken());
    }
    store
        .delete(WORKLOADS, &instance_key(value.machine, value.id), None)
        .await?;
    Ok(())
}

async fn is_held(store: &Store, service: &ServiceRecord) -> Result<bool, Failure> {
    let key = service.machine.to_string();
    let found: Option<Revised<MachineRecord>> = store.get(MACHINES, &key).await?;
    Ok(found.is_some_and(|found| found.value.workloads.contains_key(&service.id)))
}

/// Somebody who deployed the same name at the same time may have taken it over before the claim.
async fn check_current(store: &Store, service: &ServiceRecord) -> Result<(), Failure> {
    let found: Option<Revised<ServiceRecord>> = store
        .get(WORKLOADS, &service_key(&service.workload))
        .await?;
    if found.is_some_and(|found| found.value.id == service.id) {
        return Ok(());
    }
    let message = format!("another request is deploying {}", service.workload);
    Err(Failure::new(Code::Conflict, message).hint("ployzctl workload ls"))
}

pub(crate) fn service_key(workload: &WorkloadName) -> String {
    format!("service.{}.{}", workload.namespace, workload.name)
}

pub(crate) fn instance_key(machine: MachineId, id: InstanceId) -> String {
    format!("instance.{machine}.{id}")
}

/// Whether a machine runs such workloads, as far as it has said.
pub(crate) fn fits(view: &View, machine: &MachineRecord, runtime: &str) -> bool {
    let observed = view.observed(machine.id);
    observed.is_none_or(|(record, _)| record.runtime.is_empty() || record.runtime == runtime)
}
