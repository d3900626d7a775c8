//! Hosts that a client makes machines of, over ssh: the client does the work, and says here how far it is, so that
//! whoever asks knows, and knows as well when the client is gone.

use ployz_api::{Code, Failure, Name, OperationId, Outcome, Payload, ProvisionReport, Success};
use ployz_core::OperationRecord;

use crate::host::clock;
use crate::machine::Machine;
use crate::network::Network;
use crate::store::{OPERATIONS, Revised};

/// The client asks one thing at a time, so that a second attempt is one too many already.
const ATTEMPTS: usize = 3;
/// As many as a network of the size that ployz is made for can take at once.
const TARGETS_MAX: usize = 200;
/// A host that was not finished is found as it was left.
const ADD_AGAIN: &str =
    "ployzctl machine add, with the same hosts, which continues where it stopped";

pub(super) async fn report(here: &Machine, report: ProvisionReport) -> Outcome {
    let network = here.running_network()?;
    match report {
        ProvisionReport::Begin {
            network: name,
            targets,
        } => begin(here, &network, &name, &targets).await,
        ProvisionReport::Alive { operation_id } => change(&network, operation_id, |_, _| {}).await,
        ProvisionReport::Stage {
            operation_id,
            target,
            stage,
        } => {
            change(&network, operation_id, |record, now| {
                record.stage_of(Some(&target), &stage, now);
            })
            .await
        }
        ProvisionReport::Ended {
            operation_id,
            target,
            cause,
        } => {
            change(&network, operation_id, |record, _| {
                record.end_of(&target, cause.as_deref());
            })
            .await
        }
        ProvisionReport::End {
            operation_id,
            code,
            message,
        } => {
            let failure = (code != Code::Ok).then(|| Failure::new(code, message));
            change(&network, operation_id, |record, now| {
                record.end(failure.as_ref(), now);
            })
            .await
        }
    }
}

async fn begin(here: &Machine, network: &Network, wanted: &Name, targets: &[String]) -> Outcome {
    let running = &network.membership.network;
    if wanted != running {
        let message = format!("the network is {running}, not {wanted}");
        return Err(Failure::new(Code::NetworkMismatch, message).hint(format!(
            "--network {running}, or --context for another network"
        )));
    }
    if !(1..=TARGETS_MAX).contains(&targets.len()) {
        let message = format!(
            "an operation takes 1 to {TARGETS_MAX} hosts, not {}",
            targets.len()
        );
        return Err(Failure::new(Code::InvalidArgument, message));
    }
    let (unix_ms, random) = clock::id_parts();
    let id = OperationId::new(unix_ms, random);
    let now = network.store.unix_secs().await?;
    let (own, target) = (here.identity.machine_id, targets.join(" "));
    let mut record = OperationRecord::begin(id, "machine-add", target, own, ADD_AGAIN, now);
    record.renew(now);
    let key = id.to_string();
    network.store.create(OPERATIONS, &key, &record).await?;
    Ok(Payload::Operation(Box::new(record.shown(now))).into())
}

/// Changes the record of work that goes on, which renews its lease.
async fn change(
    network: &Network,
    id: OperationId,
    edit: impl Fn(&mut OperationRecord, u64),
) -> Outcome {
    let key = id.to_string();
    for _ in 0..ATTEMPTS {
        let found: Option<Revised<OperationRecord>> = network.store.get(OPERATIONS, &key).await?;
        let going_on = found.filter(|found| found.value.row().lease_until.is_some());
        let Some(Revised {
            mut value,
            revision,
        }) = going_on
        else {
            let message = format!("operation {id} does not exist or has ended");
            return Err(
                Failure::new(Code::InvalidArgument, message).hint("ployzctl operation list")
            );
        };
        let now = network.store.unix_secs().await?;
        value.renew(now);
        edit(&mut value, now);
        if network
            .store
            .update(OPERATIONS, &key, &value, revision)
            .await?
        {
            return Ok(Success {
                message: String::new(),
                payload: Some(Payload::Operation(Box::new(value.shown(now)))),
            });
        }
    }
    let message = format!("another client reports on operation {id}");
    Err(Failure::new(Code::Conflict, message))
}
