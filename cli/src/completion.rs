//! Completion of machines and contexts in the shell.

use std::ffi::OsStr;
use std::time::Duration;

use clap::Parser as _;
use clap_complete::CompletionCandidate;
use ployz_api::{Payload, Request};

use crate::arguments::global::OnlyConnection;
use crate::connection::Connection;
use crate::contexts::{Contexts, LOCAL};
use crate::printer::Notes;

/// The operator has pressed a key and waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// The flags that say whom to ask.
const FLAGS: [&str; 4] = ["--context", "--connect", "--config", "--data-dir"];

/// The names of machines.
pub(crate) fn machines(current: &OsStr) -> Vec<CompletionCandidate> {
    let answer = connection().and_then(|connection| connection.ask(&Request::MachineList).ok());
    let Some(Payload::MachineList(list)) = answer.and_then(|answer| answer.payload) else {
        return Vec::new();
    };
    let names = list.rows.into_iter().map(|row| row.name.to_string());
    candidates(names, current)
}

/// The names of contexts.
pub(crate) fn contexts(current: &OsStr) -> Vec<CompletionCandidate> {
    let contexts = connection()
        .and_then(|connection| connection.contexts_path().ok())
        .and_then(|path| Contexts::read(&path).ok())
        .unwrap_or_default();
    let names = contexts.contexts.into_keys().map(|name| name.to_string());
    candidates(names.chain([LOCAL.to_owned()]), current)
}

fn candidates(names: impl Iterator<Item = String>, current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    names
        .filter(|name| name.starts_with(&*current))
        .map(CompletionCandidate::new)
        .collect()
}

/// As the line so far says, which is behind `--` on our own.
fn connection() -> Option<Connection> {
    let line = std::env::args().skip_while(|word| word != "--").skip(1);
    let mut arguments = OnlyConnection::try_parse_from(connection_flags(line))
        .ok()?
        .connection;
    arguments.timeout = PATIENCE;
    Some(Connection::new(arguments, Notes::SILENT))
}

/// A command line with nothing but the flags that say whom to ask.
fn connection_flags(line: impl Iterator<Item = String>) -> Vec<String> {
    let mut flags = vec![String::new()];
    let mut line = line.peekable();
    while let Some(word) = line.next() {
        let flag = word.split('=').next().unwrap_or_default();
        if !FLAGS.contains(&flag) {
            continue;
        }
        let has_value = word.contains('=');
        flags.push(word);
        if !has_value {
            flags.extend(line.next());
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_to_ask_is_taken_from_the_line() {
        let line = "ployzctl --context a machine inspect --data-dir=/b --json m";
        let flags = connection_flags(line.split(' ').map(str::to_owned));
        assert_eq!(flags[1..], ["--context", "a", "--data-dir=/b"]);
        let only = OnlyConnection::try_parse_from(flags).unwrap();
        assert_eq!(only.connection.context.unwrap().as_str(), "a");
    }
}
