//! `ployzctl operation`.

use std::time::Duration;

use ployz_api::{OperationId, OperationRow, Payload, Request, WorkState};

use super::{date, unexpected};
use crate::arguments::OperationCommand;
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};
use crate::printer::Printer;
use crate::table::Table;

/// Stages take longer than this, or need not be seen as they come.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) fn run(
    connection: &Connection,
    printer: &Printer,
    command: &OperationCommand,
) -> Outcome {
    match command {
        OperationCommand::List => list(connection),
        OperationCommand::Get { operation_id } => get(connection, *operation_id).map(|(it, _)| it),
        OperationCommand::Watch { operation_id } => watch(connection, printer, *operation_id),
    }
}

fn list(connection: &Connection) -> Outcome {
    let answer = connection.ask(&Request::OperationList)?;
    let Some(Payload::OperationList(list)) = &answer.payload else {
        return Err(unexpected());
    };
    let mut table = Table::new(&["OPERATION", "WHAT", "ABOUT", "STATE", "STAGE", "BEGAN"]);
    for row in &list.operations {
        let stage = row.stages.last().map(|last| last.stage.clone());
        table.row(vec![
            row.operation_id.to_string(),
            row.operation.clone(),
            row.target.clone(),
            row.state.to_string(),
            stage.unwrap_or_default(),
            date(row.started_at),
        ]);
    }
    let text = if list.operations.is_empty() {
        "no operations".to_owned()
    } else {
        table.render()
    };
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}

fn get(
    connection: &Connection,
    operation_id: OperationId,
) -> Result<(Success, OperationRow), ployz_api::Failure> {
    let answer = connection.ask(&Request::OperationGet { operation_id })?;
    let Some(Payload::Operation(row)) = &answer.payload else {
        return Err(unexpected());
    };
    let row = OperationRow::clone(row);
    let success = Success::new(answer.message, text(&row), answer.payload.as_ref());
    Ok((success, row))
}

/// Says what has changed, until it is over; fails if it did.
fn watch(connection: &Connection, printer: &Printer, id: OperationId) -> Outcome {
    printer.begin_stream();
    let mut before = None;
    loop {
        let (success, row) = get(connection, id)?;
        let state = row.state;
        if state != WorkState::Running {
            let has_failed = state != WorkState::Done;
            return Ok(Success {
                has_failed,
                ..success
            });
        }
        if before.as_ref() != Some(&row) {
            printer.print_again(&Ok(success));
            before = Some(row);
        }
        if !connection.pause(WATCH_INTERVAL) {
            return Ok(Success::default());
        }
    }
}

fn text(row: &OperationRow) -> String {
    let mut text = format!(
        "{} of {}: {}\nbegan       {} UTC, on {}",
        row.operation,
        row.target,
        row.state,
        date(row.started_at),
        row.machine
    );
    for stage in &row.stages {
        text += &format!("\n{:<11} {}", stage.state, stage.stage);
    }
    if !row.message.is_empty() {
        text += &format!("\n{}\nnext        {}", row.message, row.next);
    }
    text
}
