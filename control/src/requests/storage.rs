//! Who holds the store, and how well: as its servers say.

use std::rc::Rc;

use ployz_api::{Outcome, Payload, StorageRequest};

use crate::machine::Machine;
use crate::services::store_change;

pub(super) async fn promote(here: &Rc<Machine>, request: StorageRequest) -> Outcome {
    Box::pin(store_change::begin(here, true, request)).await
}

pub(super) async fn demote(here: &Rc<Machine>, request: StorageRequest) -> Outcome {
    Box::pin(store_change::begin(here, false, request)).await
}

pub(super) async fn list(here: &Machine) -> Outcome {
    Ok(Payload::StorageList(store_change::storage_list(here).await?).into())
}
