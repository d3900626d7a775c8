//! Other programs, run to their end within a limit.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Enough for `ip`, `wg` and `ethtool`, which take milliseconds.
pub(crate) const SHORT: Duration = Duration::from_secs(10);

/// Runs `command` to its end and returns its standard output.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<String> {
    let child = piped(command)
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    finish(child, limit).with_context(|| format!("{command:?}"))
}

/// Sets a command up so that [`finish`] can collect what it prints.
pub(crate) fn piped(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
}

/// Feeds `input` to the standard input of a child that has been given one.
pub(crate) fn feed(child: &mut Child, input: &str) -> Result<()> {
    let mut stdin = child
        .stdin
        .take()
        .context("the child has no standard input")?;
    stdin.write_all(input.as_bytes())?;
    Ok(())
}

/// Waits for a child within `limit`; one that takes longer is killed.
pub(crate) fn finish(child: Child, limit: Duration) -> Result<String> {
    let pid = pid_of(&child);
    let (done, ended) = mpsc::channel();
    let waiter = std::thread::spawn(move || done.send(child.wait_with_output()));
    let output = match ended.recv_timeout(limit) {
        Ok(output) => output?,
        Err(_) => {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waiter.join();
            bail!("killed: it took longer than {limit:?}");
        }
    };
    let _ = waiter.join();
    checked(output)
}

/// Asks a child to end, and makes it end after `limit`. True when it ended by itself with success.
pub(crate) fn stop(child: &mut Child, limit: Duration) -> bool {
    let _ = kill(pid_of(child), Signal::SIGTERM);
    let ended = crate::clock::poll(limit, || child.try_wait().ok().flatten());
    if ended.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    ended.is_some_and(|status| status.success())
}

pub(crate) fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

fn checked(output: Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!("{}: {}{}", output.status, stdout.trim(), stderr.trim());
}
