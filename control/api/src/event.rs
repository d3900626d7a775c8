//! Events: the audit log of changes.

use serde::{Deserialize, Serialize};

use crate::certificate::Role;
use crate::code::Code;
use crate::frame::RESPONSE_LEN_MAX;
use crate::id::MachineId;
use crate::request_table::Operation;
use crate::text;

/// The default number of events to show.
pub const EVENTS_LIMIT_DEFAULT: u32 = 100;
/// Of some 300 bytes each; at their longest they still fit into an answer.
pub const EVENTS_LIMIT_MAX: u32 = 1_000;
/// A credential's id has 26 bytes, `root-` and a machine's id 31.
const SUBJECT_LEN_MAX: usize = 40;
/// The longest target: a workload in its namespace, of two names.
pub const EVENT_TARGET_LEN_MAX: usize = 128;
/// The longest message: two sentences.
pub const EVENT_MESSAGE_LEN_MAX: usize = 220;
/// The names of the fields, and those that have no text.
const FIXED_LEN_MAX: usize = 220;
// JSON escapes a quote with one more byte, and what takes more is no text.
const _: () = {
    let texts = SUBJECT_LEN_MAX + EVENT_TARGET_LEN_MAX + EVENT_MESSAGE_LEN_MAX;
    let events = EVENTS_LIMIT_MAX as usize;
    assert!((2 * texts + FIXED_LEN_MAX) * events < RESPONSE_LEN_MAX);
};

/// A change, or an attempt at one, as the machine reports it that carried it out. The store vouches for that machine,
/// and for nothing else in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was over; seconds since 1970.
    pub at: u64,
    /// The machine that carried it out and wrote this: no other one can.
    pub machine: MachineId,
    /// The subject of the caller's certificate, as that machine reports it: a credential's id, `root` of that machine,
    /// or empty.
    #[serde(deserialize_with = "text::parse::<SUBJECT_LEN_MAX, _, _>")]
    pub subject: String,
    /// The caller's role, as that machine reports it.
    pub role: Role,
    /// The request.
    pub operation: Operation,
    /// The target of the request, in a word.
    #[serde(deserialize_with = "text::parse::<EVENT_TARGET_LEN_MAX, _, _>")]
    pub target: String,
    /// How it ended.
    pub code: Code,
    /// The same in words.
    #[serde(deserialize_with = "text::parse::<EVENT_MESSAGE_LEN_MAX, _, _>")]
    pub message: String,
}

/// Events.
#[derive(Debug, Serialize, Deserialize)]
pub struct EventList {
    /// The oldest first.
    pub events: Vec<Event>,
}
