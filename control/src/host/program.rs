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

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_program_answers_with_its_output_or_with_what_it_has_complained_of() {
        let said = run("sh", &["-c", "echo yes; echo no >&2"], PATIENCE).await;
        assert_eq!(said.unwrap(), "yes\n");
        let failed = run(
            "sh",
            &["-c", "echo yes; echo '  no ' >&2; exit 3"],
            PATIENCE,
        )
        .await;
        let HostError::ProgramFailed { program, cause } = failed.unwrap_err() else {
            panic!("another failure");
        };
        assert_eq!((program.as_str(), cause.as_str()), ("sh", "no"));
        let missing = run("ployz-no-such-program", &[], PATIENCE)
            .await
            .unwrap_err();
        assert!(
            missing.to_string().contains("ployz-no-such-program"),
            "{missing}"
        );
        // It has nothing to read, and does not wait for it.
        assert_eq!(run("cat", &[], PATIENCE).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_ended() {
        let argument = format!("61.{}", std::process::id());
        let late = run("sleep", &[&argument], Duration::from_millis(50)).await;
        assert!(
            matches!(late, Err(HostError::ProgramTimedOut { .. })),
            "{late:?}"
        );
        let is_gone = || crate::host::process::Process::with_argument(argument.as_ref()).is_none();
        crate::testkit::wait_until("the program to be gone", PATIENCE, is_gone).await;
    }

    #[tokio::test]
    async fn work_on_another_thread_hands_back_what_it_has_found() {
        let found: Result<u32, HostError> = blocking(|| Ok(7)).await;
        assert_eq!(found.unwrap(), 7);
        let failed: Result<u32, HostError> = blocking(|| Err(failed("a", "b"))).await;
        assert!(matches!(failed, Err(HostError::ProgramFailed { .. })));
        let panicked: Result<u32, HostError> = blocking(|| panic!("as a test has it")).await;
        assert!(
            matches!(panicked, Err(HostError::Thread(_))),
            "{panicked:?}"
        );
    }
}
