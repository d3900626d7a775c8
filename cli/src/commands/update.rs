//! `ployzctl machine update`: the daemon carries it out, watched or not; this file starts it and watches.

use std::collections::BTreeSet;
use std::time::Duration;

use ployz_api::{
    Code, Failure, MachineUpdate, OperationId, OperationRow, Payload, ReleaseSource, Request,
    UpdateRequest, WorkState,
};

use super::unexpected;
use crate::arguments::UpdateArguments;
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};
use crate::table::Table;

/// How often it is asked how far it is.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// Failed requests in a row: the daemon that is asked is updated as well. At most two minutes.
const SILENCE_MAX: u32 = 240;

pub(crate) fn run(connection: &Connection, arguments: UpdateArguments) -> Outcome {
    let answer = connection.ask(&Request::MachineUpdate(UpdateRequest {
        machines: arguments.machines,
        version: arguments.version,
        canary: arguments.canary,
        rollback: !arguments.no_rollback,
    }))?;
    let Some(Payload::MachineUpdate(begun)) = answer.payload else {
        return Err(unexpected());
    };
    let row = watch(connection, begun.operation_id)?;
    let Some(update) = &row.update else {
        return Err(unexpected());
    };
    Ok(Success {
        has_failed: row.state != WorkState::Done,
        ..Success::new(
            row.message.clone(),
            described(&row, update),
            Some(&Payload::MachineUpdate(update.clone())),
        )
    })
}

/// Says every stage as it begins, until it is over.
pub(super) fn watch(
    connection: &Connection,
    operation_id: OperationId,
) -> Result<OperationRow, Failure> {
    let mut reported = BTreeSet::new();
    let mut silence = 0;
    loop {
        match connection.ask(&Request::OperationGet { operation_id }) {
            Ok(answer) => {
                let Some(Payload::Operation(row)) = answer.payload else {
                    return Err(unexpected());
                };
                silence = 0;
                for stage in &row.stages {
                    let target = stage.target.as_ref().map(|it| format!("{it}: "));
                    let line = target.unwrap_or_default() + &stage.stage;
                    if reported.insert(line.clone()) {
                        connection.progress(&line);
                    }
                }
                if row.state != WorkState::Running {
                    return Ok(*row);
                }
            }
            Err(failure) if !is_transient(failure.code) || silence == SILENCE_MAX => {
                return Err(failure.hint(format!("ployzctl operation watch {operation_id}")));
            }
            Err(_) => silence += 1,
        }
        if !connection.pause(WATCH_INTERVAL) {
            let message = "interrupted; the operation continues in the background";
            return Err(Failure::new(Code::Timeout, message)
                .hint(format!("ployzctl operation watch {operation_id}")));
        }
    }
}

/// Tells whether a failure passes: a daemon that is being replaced, or its store, causes it.
fn is_transient(code: Code) -> bool {
    [
        Code::DaemonUnreachable,
        Code::MachineUnreachable,
        Code::StoreUnavailable,
        Code::NetworkNotRunning,
        Code::Timeout,
        Code::Busy,
    ]
    .contains(&code)
}

const fn fetched(source: ReleaseSource) -> &'static str {
    match source {
        ReleaseSource::Base => "release base",
        ReleaseSource::Coordinator => "coordinator",
    }
}

fn described(row: &OperationRow, update: &MachineUpdate) -> String {
    let mut table = Table::new(&["MACHINE", "VERSION", "BEFORE", "NO TRAFFIC FOR", "FETCHED"]);
    for machine in &update.updated {
        let gap = machine.gap_ms.map(|ms| format!("{ms} ms"));
        table.row(vec![
            machine.name.to_string(),
            machine.to.clone(),
            machine.from.clone(),
            gap.unwrap_or_default(),
            fetched(machine.release_from).to_owned(),
        ]);
    }
    let mut text = if update.updated.is_empty() {
        format!("no machine was updated to {}", update.version)
    } else {
        table.render()
    };
    let ids = |ids: &[ployz_api::MachineId]| {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        ids.join(" ")
    };
    if !update.unchanged.is_empty() {
        text += &format!("\nunchanged: {}", ids(&update.unchanged));
    }
    for failed in &update.failed {
        let state = if failed.rolled_back {
            "the previous version is running"
        } else {
            "the previous version is NOT running"
        };
        text += &format!(
            "\nfailed: {} in stage {}: {}; {state}",
            failed.name, failed.stage, failed.message
        );
    }
    if !update.untouched.is_empty() {
        text += &format!("\nnot touched: {}", ids(&update.untouched));
    }
    if row.state != WorkState::Done {
        text += &format!("\nnext: {}", row.next);
    }
    text
}
