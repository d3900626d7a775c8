//! `ployzctl doctor`.

use ployz_api::{Check, Doctor, Payload, Request, Verdict};

use super::unexpected;
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};

pub(crate) fn run(connection: &Connection, machine: Option<String>) -> Outcome {
    let answer = connection.ask(&Request::Doctor { machine })?;
    let Some(Payload::Doctor(doctor)) = &answer.payload else {
        return Err(unexpected());
    };
    let success = Success::new(answer.message, text(doctor), answer.payload.as_ref());
    Ok(Success {
        has_failed: !doctor.healthy,
        ..success
    })
}

fn text(doctor: &Doctor) -> String {
    let lines: Vec<String> = doctor.checks.iter().map(line).collect();
    lines.join("\n")
}

fn line(check: &Check) -> String {
    let verdict = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    let line = format!("{verdict:<4}  {:<10}  {}", check.check, check.cause);
    match &check.mend {
        Some(mend) => format!("{line}\n                  mend: {mend}"),
        None => line,
    }
}
