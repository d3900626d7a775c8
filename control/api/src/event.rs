//! Events: the audit log of changes.

use serde::{Deserialize, Serialize};

use crate::certificate::Role;
use crate::code::Code;
use crate::id::MachineId;
use crate::request_table::Operation;

/// The default number of events to show.
pub const EVENTS_LIMIT_DEFAULT: u32 = 100;
/// Of some 300 bytes each; they fit into an answer three times.
pub const EVENTS_LIMIT_MAX: u32 = 1_000;

/// A change, or an attempt at one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was over; seconds since 1970.
    pub at: u64,
    /// The machine that carried it out.
    pub machine: MachineId,
    /// The subject of the caller's certificate: a credential's id, `root` of that machine, or empty.
    pub subject: String,
    /// The caller's role.
    pub role: Role,
    /// The request.
    pub operation: Operation,
    /// The target of the request, in a word.
    pub target: String,
    /// How it ended.
    pub code: Code,
    /// The same in words.
    pub message: String,
}

/// Events.
#[derive(Debug, Serialize, Deserialize)]
pub struct EventList {
    /// The oldest first.
    pub events: Vec<Event>,
}
