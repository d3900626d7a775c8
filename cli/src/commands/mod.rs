//! The commands: one file for each, or for a family of them.

pub(crate) mod context;
pub(crate) mod credential;
pub(crate) mod daemon;
mod data_plane;
mod date;
pub(crate) mod doctor;
pub(crate) mod events;
mod lifecycle;
pub(crate) mod machine;
pub(crate) mod manual;
pub(crate) mod mesh;
pub(crate) mod migrate;
pub(crate) mod operation;
mod provision;
pub(crate) mod remove;
mod rtt;
pub(crate) mod status;
mod storage;
mod update;
pub(crate) mod workload;

use std::io::Read as _;

use ployz_api::{Code, Failure, Request, Secret};
use serde_json::{Map, Value};

use crate::connection::Connection;
use crate::outcome::{Outcome, Success, unexpected};

use date::date;

/// Tokens and names are shorter; whatever else comes is not read.
const STDIN_MAX: u64 = 16 * 1024;

/// Reads a word from stdin, so that no list of processes shows it.
fn word_from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(STDIN_MAX).read_to_string(&mut text);
    let word = text.trim();
    if read.is_err() || word.is_empty() {
        return Err(Failure::new(
            Code::InvalidArgument,
            "stdin was empty or could not be read",
        ));
    }
    Ok(word.to_owned())
}

/// How the next machine uses a token: not on a command line, which every user of that machine can see.
fn import_on_next(token: &Secret) -> String {
    let token = token.expose();
    format!(
        "On the next machine, with the token as its input:\n  ployzctl machine invite import --token-stdin\n\n{token}"
    )
}

/// A request whose answer is one sentence.
fn send(connection: &Connection, request: &Request) -> Outcome {
    let answer = connection.ask(request)?;
    let text = answer.message.clone();
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}

/// A document that we write ourselves.
fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}
