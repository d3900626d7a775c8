//! What comes of a command.

use ployz_api::{Failure, Payload};
use serde_json::{Map, Value};

/// A command that did what it was asked.
#[derive(Debug)]
pub(crate) struct Success {
    /// One sentence, for everybody.
    pub(crate) message: String,
    /// For people.
    pub(crate) text: String,
    /// For programs; it has a `kind`, if there is anything in it.
    pub(crate) payload: Map<String, Value>,
}

/// Done, or why not.
pub(crate) type Outcome = Result<Success, Failure>;

impl Success {
    /// What a daemon did, put into words.
    pub(crate) fn new(message: String, text: String, payload: Option<&Payload>) -> Self {
        let payload = match payload.map(serde_json::to_value) {
            Some(Ok(Value::Object(payload))) => payload,
            Some(_) | None => Map::new(),
        };
        Self {
            message,
            text,
            payload,
        }
    }
}
