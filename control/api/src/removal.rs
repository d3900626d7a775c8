//! The report on a machine that leaves a network.

use serde::{Deserialize, Serialize};

use crate::id::MachineId;

/// A machine is out of the network.
#[derive(Debug, Serialize, Deserialize)]
pub struct MachineRemove {
    /// Which one.
    pub id: MachineId,
    /// Whether the machine itself was left alone.
    pub force: bool,
    /// The steps, in their order.
    pub cleanup: Vec<CleanupStep>,
}

/// A step of a removal.
#[derive(Debug, Serialize, Deserialize)]
pub struct CleanupStep {
    /// The name of the step.
    pub step: String,
    /// Whether it is clean.
    pub ok: bool,
    /// A sentence about the result.
    pub message: String,
}

/// A machine has done its own part of its removal, as far as it could.
#[derive(Debug, Serialize, Deserialize)]
pub struct MachineRetired {
    /// The steps, in their order; the first step that failed is the last one.
    pub cleanup: Vec<CleanupStep>,
}
