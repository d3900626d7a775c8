//! The outcome of a command.

use ployz_api::{Code, Failure, Payload};
use serde_json::{Map, Value};

/// A command that did what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Success {
    /// A sentence for people and programs.
    pub(crate) message: String,
    /// For people.
    pub(crate) text: String,
    /// For programs; it has a `kind`, if there is anything in it.
    pub(crate) payload: Map<String, Value>,
    /// Something that was asked about is not as it should be.
    pub(crate) has_failed: bool,
    /// Some of what it was asked for could not be done: the code of the first.
    pub(crate) partial: Option<Code>,
}

/// Done, or why not.
pub(crate) type Outcome = Result<Success, Failure>;

impl Success {
    /// Everything has been said: it was the end of a stream.
    pub(crate) fn is_silent(&self) -> bool {
        self.message.is_empty() && self.text.is_empty() && self.payload.is_empty()
    }

    /// Builds the outcome from a daemon's answer.
    pub(crate) fn new(message: String, text: String, payload: Option<&Payload>) -> Self {
        let payload = match payload.map(serde_json::to_value) {
            Some(Ok(Value::Object(payload))) => payload,
            Some(_) | None => Map::new(),
        };
        Self {
            message,
            text,
            payload,
            has_failed: false,
            partial: None,
        }
    }
}

/// The failure for an answer of the wrong kind, which a daemon of another version gives.
pub(crate) fn unexpected() -> Failure {
    Failure::new(
        Code::Unsupported,
        "the daemon sent an answer that this ployzctl does not understand",
    )
    .hint("use the ployzctl of the daemon's version")
}
