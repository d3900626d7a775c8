//! Planning a change: which machines would hold the store, and whether they can.

use std::collections::BTreeSet;
use std::rc::Rc;

use ployz_api::{
    Code, FailedPromotion, Failure, MachineId, Outcome, Payload, StoragePromotion, StorageReport,
    StorageRequest, StorageStep, StoreLocation, Success,
};
use ployz_core::{StoragePlan, StorageWish, plan_storage};

use crate::machine::Machine;
use crate::network::Network;
use crate::services::store_change::ask::{Part, ask};
use crate::services::store_change::coordinator::coordinate;
use crate::services::store_change::journal::{AGAIN, Journal, STEP_WAIT};
use crate::store::operations::{OperationLog, STORAGE_CHANGE};

/// Plans a change, and begins it: it goes on after this returns.
pub(crate) async fn begin(here: &Rc<Machine>, promote: bool, request: StorageRequest) -> Outcome {
    let network = here.running_network()?;
    let guard = here.store_lock.take_for("a store change")?;
    let plan = plan(&network, promote, &request)?;
    let mut promotion = StoragePromotion {
        operation_id: None,
        replicas: u32::try_from(plan.members.len()).unwrap_or(u32::MAX),
        promoted: plan.promoted.clone(),
        demoted: plan.demoted.clone(),
        unchanged: plan.unchanged.clone(),
        failed: Vec::new(),
        plan: plan.steps.clone(),
    };
    if plan.is_empty() {
        return Ok(answered("the store has these holders already", promotion));
    }
    let reports = preflight(here, &plan.members).await;
    let (location, failed) = locate(&network, reports);
    promotion.failed = failed;
    if !promotion.failed.is_empty() {
        return Ok(answered(
            "nothing was changed: not every machine can hold the store",
            promotion,
        ));
    }
    if request.dry_run {
        return Ok(answered("dry run: nothing was changed", promotion));
    }
    let names = request.machines.join(" ");
    let log = OperationLog::begin(
        here.identity.machine_id,
        &network.store,
        STORAGE_CHANGE,
        names,
        AGAIN,
    );
    // A store that takes no writes now is not to be moved now.
    log.announce().await?;
    promotion.operation_id = Some(log.id());
    let journal = Journal {
        operation_id: log.id(),
        place: location,
        members: plan.members,
        leavers: plan.demoted.into_iter().collect(),
    };
    tracing::info!(epoch = journal.place.epoch, "store change started");
    coordinate(here, log, journal, guard)?;
    Ok(answered("store change started", promotion))
}

fn answered(message: &str, promotion: StoragePromotion) -> Success {
    Success {
        message: message.to_owned(),
        payload: Some(Payload::StoragePromotion(Box::new(promotion))),
    }
}

fn plan(
    network: &Network,
    promote: bool,
    request: &StorageRequest,
) -> Result<StoragePlan, Failure> {
    let view = network.view();
    let select = |wanted: &String| Ok(view.select(wanted)?.id);
    let named = request.machines.iter().map(select);
    let named = named.collect::<Result<Vec<MachineId>, Failure>>()?;
    let wish = if promote {
        StorageWish::Promote(request.replicas)
    } else {
        StorageWish::Demote(request.replicas)
    };
    plan_storage(
        wish,
        &named,
        view.machines(),
        network.membership.store.len(),
    )
}

type Report = (MachineId, Result<StorageReport, Failure>);

/// Asks those that would hold the store whether they can, all at once.
async fn preflight(here: &Rc<Machine>, members: &BTreeSet<MachineId>) -> Vec<Report> {
    let asking = members.iter().map(async |id| {
        let step = Part::Step(StorageStep::Preflight);
        let report = match ask(here, *id, step, STEP_WAIT).await {
            Ok(Some(Payload::StorageReport(report))) => Ok(report),
            Ok(_) => Err(Failure::new(
                Code::VersionMismatch,
                "it does not support store changes; update ployzd on it first",
            )),
            Err(failure) => Err(failure),
        };
        (*id, report)
    });
    futures_util::future::join_all(asking).await
}

/// Where the next store is, and who cannot hold it.
fn locate(network: &Network, reports: Vec<Report>) -> (StoreLocation, Vec<FailedPromotion>) {
    let own = ployz_install::own_version();
    let mut failed = Vec::new();
    let mut location = StoreLocation {
        epoch: network.membership.store_epoch,
        servers: Vec::new(),
    };
    let view = network.view();
    for (machine_id, report) in reports {
        let refused = |cause, message| FailedPromotion {
            machine_id,
            cause,
            message,
        };
        match (report, view.machine(machine_id)) {
            (Err(failure), _) => failed.push(refused(failure.code, failure.message)),
            (Ok(report), _) if report.version != own => {
                let message = format!(
                    "version {} does not match {own}, the coordinator's; update the older one first",
                    report.version
                );
                failed.push(refused(Code::VersionMismatch, message));
            }
            (Ok(_), None) => failed.push(refused(
                Code::MachineNotFound,
                "the machine was removed".to_owned(),
            )),
            (Ok(report), Some(machine)) => {
                location.epoch = location.epoch.max(report.epoch);
                location
                    .servers
                    .push((machine.overlay_ip.into(), report.port));
            }
        }
    }
    location.epoch += 1;
    (location, failed)
}
