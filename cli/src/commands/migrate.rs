//! `ployzctl migrate`.

use std::time::Duration;

use ployz_api::{Code, Failure, MigrateRequest, Payload, Request, WorkState};

use super::{send, unexpected};
use crate::arguments::{MigrateArguments, MigrateCommand};
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};

/// Stages take longer than this, or need not be seen as they come.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) fn run(connection: &Connection, command: MigrateCommand) -> Outcome {
    match command {
        MigrateCommand::Preview(arguments) => {
            send(connection, &Request::MigratePreview(asked_for(arguments)))
        }
        MigrateCommand::Apply(arguments) => apply(connection, asked_for(arguments)),
    }
}

fn asked_for(arguments: MigrateArguments) -> MigrateRequest {
    MigrateRequest {
        workload: arguments.workload,
        to: arguments.to,
    }
}

/// The coordinator moves the workload, watched or not.
fn apply(connection: &Connection, request: MigrateRequest) -> Outcome {
    let answer = connection.ask(&Request::MigrateApply(request))?;
    let Some(Payload::MigrateApply(begun)) = &answer.payload else {
        return Err(unexpected());
    };
    connection.progress(&answer.message);
    let operation_id = begun.operation_id;
    let mut reported = String::new();
    loop {
        // Its first stage may not be in the store yet.
        let seen = connection.ask(&Request::OperationGet { operation_id });
        if let Ok(seen) = seen {
            let Some(Payload::Operation(row)) = seen.payload else {
                return Err(unexpected());
            };
            match row.state {
                WorkState::Running => {}
                WorkState::Done => {
                    let text = format!("{}: done", answer.message);
                    return Ok(Success::new(text.clone(), text, answer.payload.as_ref()));
                }
                WorkState::Failed | WorkState::Interrupted => {
                    let code = row.code.unwrap_or(Code::Internal);
                    let message = format!("{}; the workload stays where it was", row.message);
                    return Err(Failure::new(code, message).hint(row.next.clone()));
                }
            }
            let stage = row.stages.last().map(|last| last.stage.clone());
            if let Some(stage) = stage.filter(|stage| *stage != reported) {
                connection.progress(&stage);
                reported = stage;
            }
        }
        if !connection.pause(WATCH_INTERVAL) {
            let message = "interrupted; the migration continues in the background";
            return Err(Failure::new(Code::Timeout, message)
                .hint(format!("ployzctl operation watch {operation_id}")));
        }
    }
}
