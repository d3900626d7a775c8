//! Programs of the host that run to their end.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::host::error::HostError;

/// Runs a program to its end, and returns its output.
///
/// # Errors
/// If the program cannot be started, does not end in time, or fails: with its error output.
pub(crate) async fn run(
    program: &str,
    line: &[&str],
    patience: Duration,
) -> Result<String, HostError> {
    let running = Command::new(program)
        .args(line)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(patience, running)
        .await
        .map_err(|_| HostError::ProgramTimedOut {
            program: program.to_owned(),
            patience,
        })?
        .map_err(|error| failed(program, &error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(failed(program, said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs work that blocks on disks or servers on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static, E: From<HostError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let worked = tokio::task::spawn_blocking(work).await;
    worked.map_err(HostError::Thread)?
}

fn failed(program: &str, cause: &str) -> HostError {
    HostError::ProgramFailed {
        program: program.to_owned(),
        cause: cause.to_owned(),
    }
}
