//! Long work, and how far it is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::id::{MachineId, OperationId};
use crate::text;
use crate::update::MachineUpdate;

/// How long work goes on that a client does and of which nothing is heard, in seconds: four times as long as it waits
/// before it says again that it is alive.
pub const LEASE_SECS: u64 = 20;

/// The state of an operation, or of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkState {
    /// In progress.
    Running,
    /// Completed.
    Done,
    /// Ended with a failure.
    Failed,
    /// Given up by the daemon or client that ran it.
    Interrupted,
}

impl WorkState {
    /// The word for the state.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for WorkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The longest kind of an operation, and the longest stage.
const WORD_LEN_MAX: usize = 64;
/// The longest target: a hundred hosts that become machines.
const TARGET_LEN_MAX: usize = 4_096;
/// The longest message: a sentence for each of several targets that failed.
const MESSAGE_LEN_MAX: usize = 4_096;

/// A stage of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The name of the stage.
    #[serde(deserialize_with = "text::parse::<WORD_LEN_MAX, _, _>")]
    pub stage: String,
    /// To which of several it is done.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "text::parse::<TARGET_LEN_MAX, _, _>"
    )]
    pub target: Option<String>,
    /// How far it is.
    pub state: WorkState,
    /// When it began; seconds since 1970.
    pub started_at: u64,
}

/// A long-running operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRow {
    /// Its id.
    pub operation_id: OperationId,
    /// The kind of operation.
    #[serde(deserialize_with = "text::parse::<WORD_LEN_MAX, _, _>")]
    pub operation: String,
    /// To what.
    #[serde(deserialize_with = "text::parse::<TARGET_LEN_MAX, _, _>")]
    pub target: String,
    /// By which machine, or told to which.
    pub machine: MachineId,
    /// How far it is.
    pub state: WorkState,
    /// When it began; seconds since 1970.
    pub started_at: u64,
    /// When it was over.
    pub ended_at: Option<u64>,
    /// Until when it counts as going on, if it is a client's; seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_until: Option<u64>,
    /// Those that have begun, in their order.
    pub stages: Vec<Stage>,
    /// `OK`, or why not, once it is over.
    pub code: Option<Code>,
    /// The same in words.
    #[serde(deserialize_with = "text::parse::<MESSAGE_LEN_MAX, _, _>")]
    pub message: String,
    /// The next step for the operator if it did not end well.
    #[serde(deserialize_with = "text::parse::<MESSAGE_LEN_MAX, _, _>")]
    pub next: String,
    /// The result of an update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Box<MachineUpdate>>,
}

/// Long work, the oldest first.
#[derive(Debug, Serialize, Deserialize)]
pub struct OperationList {
    /// By age.
    pub operations: Vec<OperationRow>,
}
