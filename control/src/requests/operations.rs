//! Seeing long work.

use ployz_api::{Code, Failure, OperationId, OperationList, Outcome, Payload};
use ployz_core::OperationRecord;

use crate::machine::Machine;
use crate::store::OPERATIONS;

pub(super) async fn list(here: &Machine) -> Outcome {
    let network = here.running_network()?;
    let records: Vec<OperationRecord> = network.store.list(OPERATIONS).await?;
    let now = network.unix_secs();
    let mut operations: Vec<_> = records.iter().map(|record| record.shown(now)).collect();
    operations.sort_by_key(|row| row.operation_id);
    Ok(Payload::OperationList(OperationList { operations }).into())
}

pub(super) async fn get(here: &Machine, id: OperationId) -> Outcome {
    let network = here.running_network()?;
    let (store, key) = (&network.store, id.to_string());
    // Who holds the store hears the latest.
    let found: Option<OperationRecord> = if network.storage.is_some() {
        store.get(OPERATIONS, &key).await?.map(|found| found.value)
    } else {
        store.read(OPERATIONS, &key).await?.into_iter().next()
    };
    let found = found.ok_or_else(|| {
        let message = format!("operation {id} does not exist, or its record has expired");
        Failure::new(Code::InvalidArgument, message).hint("ployzctl operation list")
    })?;
    Ok(Payload::Operation(Box::new(found.shown(network.unix_secs()))).into())
}
