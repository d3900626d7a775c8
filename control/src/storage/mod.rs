//! Changing who holds the store, driven by one of those that do.
//!
//! ```text
//!   prepare ──▶ freeze ──▶ copy ──▶ compare ──▶ commit ──▶ cut over ──▶ complete ──▶ settle
//!      │          │          │         │           │
//!      └──────────┴──────────┴─────────┘           └── network.json here: from then on it is gone on with, whatever happens
//!                 │
//!                 └▶ thaw, abandon: the store is what it was
//! ```
//!
//! The next store is a fresh one, beside the one that counts. A journal on the coordinator's disk says that there is a change; its
//! `network.json` says which store counts. So a daemon that comes after one that died knows which way to go.

mod drive;
mod member;
mod places;
mod telling;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ployz_api::{
    Code, FailedPromotion, Failure, MachineId, OperationId, Outcome, Payload, Request,
    StoragePromotion, StorageReport, StorageRequest, StorageStep, StorePlace, Success,
};
use ployz_core::{StoragePlan, StorageWish, plan_storage};
use serde::{Deserialize, Serialize};

use crate::daemon::Daemon;
use crate::network::Network;
use crate::operations::{STORAGE_CHANGE, Work};
use crate::requests::not_selected;
use drive::Change;
use telling::ask;

pub(crate) use drive::resume;
pub(crate) use member::step;
pub(crate) use places::{forget, move_in, own_user, settings};
pub(crate) use telling::tell_the_silent;

/// The file of a [`Journal`].
const JOURNAL_FILE: &str = "storage-change.json";
/// A step that waits for no election.
const STEP_WAIT: Duration = Duration::from_secs(15);
const AGAIN: &str =
    "ployzctl machine storage ls, and the same command again: what was half done is undone";

/// A change that is under way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    operation_id: OperationId,
    place: StorePlace,
    /// Who will hold the store.
    members: BTreeSet<MachineId>,
    /// Who ceases to.
    leavers: BTreeSet<MachineId>,
}

/// Plans a change, and begins it: it goes on after this returns.
pub(crate) async fn begin(daemon: &Rc<Daemon>, promote: bool, request: StorageRequest) -> Outcome {
    let network = daemon.running_network()?;
    network.coordinator()?;
    let turn = Arc::clone(&daemon.storage).try_lock_owned().map_err(|_| {
        let message = "the holders of the store are being changed";
        Failure::new(Code::Busy, message).hint("ployzctl operation list")
    })?;
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
        return Ok(answered("the store is there already", promotion));
    }
    let reports = preflight(daemon, &plan.members).await;
    let (place, failed) = judge(&network, reports);
    promotion.failed = failed;
    if !promotion.failed.is_empty() {
        return Ok(answered(
            "nothing was changed: not all of them can hold the store",
            promotion,
        ));
    }
    if request.dry_run {
        return Ok(answered("this is what would be done", promotion));
    }
    let names = request.machines.join(" ");
    let work = Work::begin(daemon, &network.store, STORAGE_CHANGE, names, AGAIN);
    // A store that takes no writes now is not to be moved now.
    work.announce().await?;
    promotion.operation_id = Some(work.id());
    let journal = Journal {
        operation_id: work.id(),
        place,
        members: plan.members,
        leavers: plan.demoted.into_iter().collect(),
    };
    tracing::info!(epoch = journal.place.epoch, "the store is being moved");
    Change::new(daemon, work, journal, turn).spawn();
    Ok(answered("begun", promotion))
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
    let select = |wanted: &String| Ok(view.select(wanted).map_err(not_selected)?.id);
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
async fn preflight(daemon: &Rc<Daemon>, members: &BTreeSet<MachineId>) -> Vec<Report> {
    let asking = members.iter().map(async |id| {
        let step = Request::StorageStep(StorageStep::Preflight);
        let report = match ask(daemon, *id, step, STEP_WAIT).await {
            Ok(Some(Payload::StorageReport(report))) => Ok(report),
            Ok(_) => Err(Failure::new(
                Code::VersionMismatch,
                "it has no word for it: update it first",
            )),
            Err(failure) => Err(failure),
        };
        (*id, report)
    });
    futures_util::future::join_all(asking).await
}

/// Where the next store is, and who cannot hold it.
fn judge(network: &Network, reports: Vec<Report>) -> (StorePlace, Vec<FailedPromotion>) {
    let own = ployz_install::own_version();
    let mut failed = Vec::new();
    let mut place = StorePlace {
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
                let message = format!("it runs {}, and {own} coordinates", report.version);
                failed.push(refused(Code::VersionMismatch, message));
            }
            (Ok(_), None) => {
                failed.push(refused(Code::MachineNotFound, "it was removed".to_owned()))
            }
            (Ok(report), Some(machine)) => {
                place.epoch = place.epoch.max(report.epoch);
                place.servers.push((machine.overlay_ip.into(), report.port));
            }
        }
    }
    place.epoch += 1;
    (place, failed)
}
