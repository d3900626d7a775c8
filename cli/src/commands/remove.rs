//! `ployzctl machine rm`.

use std::io::{BufRead as _, IsTerminal as _};

use ployz_api::{Code, Failure, MachineRemove, Payload, Request, text};
use serde_json::Value;

use super::unexpected;
use crate::arguments::RemoveArguments;
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};

pub(crate) fn run(connection: &Connection, arguments: RemoveArguments) -> Outcome {
    if !arguments.yes {
        confirm(connection, &arguments)?;
    }
    let answer = connection.ask(&Request::MachineRemove {
        machine: arguments.machine,
        force: arguments.force,
    })?;
    let Some(Payload::MachineRemove(removed)) = &answer.payload else {
        return Err(unexpected());
    };
    let text = described(&answer.message, removed);
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}

fn described(message: &str, removed: &MachineRemove) -> String {
    let steps = removed.cleanup.iter().map(|step| {
        let verdict = if step.ok { "" } else { "pending: " };
        format!("\n{}: {verdict}{}", step.step, step.message)
    });
    std::iter::once(message.to_owned()).chain(steps).collect()
}

/// Lists what the removal deletes, one thing a line.
fn what_is_lost(
    connection: &Connection,
    arguments: &RemoveArguments,
) -> Result<Vec<String>, Failure> {
    let machine = arguments.machine.clone();
    let answer = connection.ask(&Request::MachineInspect { machine })?;
    let Some(Payload::MachineInspect(inspected)) = answer.payload else {
        return Err(unexpected());
    };
    let holds = inspected.desired["workloads"].as_object();
    let workloads = holds
        .into_iter()
        .flat_map(|holds| holds.values().filter_map(Value::as_str))
        .map(|name| {
            let fate = if arguments.force {
                "keeps running there and is removed from the records"
            } else {
                "is stopped, and its volumes are deleted with the machine's data"
            };
            format!("workload {name} {fate}")
        });
    let rest = if arguments.force {
        "the daemon and its data stay on the machine"
    } else {
        "the daemon and its data are deleted, including the machine's identity"
    };
    Ok(workloads.chain([rest.to_owned()]).collect())
}

/// Asks for confirmation on a terminal; without one, `--yes` has to be given.
#[expect(clippy::print_stderr, reason = "a question is not an answer")]
fn confirm(connection: &Connection, arguments: &RemoveArguments) -> Result<(), Failure> {
    let machine = &arguments.machine;
    let refused = |message: &str| {
        Err(Failure::new(Code::InvalidArgument, message)
            .hint(format!("ployzctl machine rm --yes {machine}")))
    };
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return refused(
            "removing a machine cannot be undone, and stdin is not a terminal to ask for confirmation",
        );
    }
    for line in what_is_lost(connection, arguments)? {
        eprintln!("{}", text::line(&line));
    }
    eprint!("Remove {machine} from the network? This cannot be undone. [y/N] ");
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    refused("nothing was removed")
}
