//! What is said of a machine that leaves a network.

use serde::{Deserialize, Serialize};

use crate::id::MachineId;

/// A machine is out of the network.
#[derive(Debug, Serialize, Deserialize)]
pub struct MachineRemove {
    /// Which one.
    pub id: MachineId,
    /// Whether the machine itself was left alone.
    pub force: bool,
    /// What was done, in this order.
    pub cleanup: Vec<CleanupStep>,
}

/// One step of a removal.
#[derive(Debug, Serialize, Deserialize)]
pub struct CleanupStep {
    /// What was cleaned up.
    pub step: String,
    /// Whether it is clean.
    pub ok: bool,
    /// One sentence about it.
    pub message: String,
}

/// A machine has done its own part of its removal, as far as it could.
#[derive(Debug, Serialize, Deserialize)]
pub struct MachineRetired {
    /// What was done, in this order; the first step that failed is the last one.
    pub cleanup: Vec<CleanupStep>,
}
