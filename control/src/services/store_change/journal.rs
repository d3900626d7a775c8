//! What the coordinator of a change keeps on its disk, and how long its steps may take.

use std::collections::BTreeSet;
use std::time::Duration;

use ployz_api::{MachineId, OperationId, StoreLocation};
use serde::{Deserialize, Serialize};

/// The file of a [`Journal`].
pub(super) const JOURNAL_FILE: &str = "storage-change.json";
/// A step that waits for no election.
pub(super) const STEP_WAIT: Duration = Duration::from_secs(15);
pub(super) const AGAIN: &str =
    "ployzctl machine storage ls, and the same command again: what was half done is undone";

/// A change that is under way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    pub(super) operation_id: OperationId,
    pub(super) place: StoreLocation,
    /// Who will hold the store.
    pub(super) members: BTreeSet<MachineId>,
    /// Who ceases to.
    pub(super) leavers: BTreeSet<MachineId>,
}
