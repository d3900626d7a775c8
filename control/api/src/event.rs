//! Who did what, and when.

use serde::{Deserialize, Serialize};

use crate::certificate::Role;
use crate::code::Code;
use crate::id::MachineId;
use crate::request::Operation;

/// How many events are shown unless somebody says otherwise.
pub const EVENTS_LIMIT_DEFAULT: u32 = 100;
/// Of some 300 bytes each; they fit into an answer three times.
pub const EVENTS_LIMIT_MAX: u32 = 1_000;

/// One change, or an attempt at one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was over; seconds since 1970.
    pub at: u64,
    /// Where it was carried out.
    pub machine: MachineId,
    /// Whose certificate it was: a credential's id, `root` of that machine, or nobody.
    pub subject: String,
    /// What they may do.
    pub role: Role,
    /// What they asked for.
    pub operation: Operation,
    /// What it was about, in a word.
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
