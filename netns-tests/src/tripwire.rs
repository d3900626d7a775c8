//! A daemon that is killed in the middle of something: at its n-th system call of a kind, before the call is made.

use std::fs;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

use crate::command::{PATIENCE, mortal, words};
use crate::wait::wait_until;

/// Laid across the way of a process; taken up again when dropped.
#[derive(Debug)]
pub struct Tripwire(Child);

impl Tripwire {
    /// SIGKILL at call number `count` of `syscall` from now on, on any thread.
    pub fn lay(pid: Pid, syscall: &str, count: u32) -> Result<Self> {
        let line = format!(
            "strace -f -qq -p {pid} -o /dev/null -e trace={syscall} -e inject={syscall}:signal=KILL:when={count}"
        );
        let child = mortal(&words(&line))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context(line)?;
        let wire = Self(child);
        wait_until("strace to watch every thread", PATIENCE, || {
            is_traced(pid).unwrap_or(false)
        })?;
        Ok(wire)
    }
}

impl Drop for Tripwire {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn is_traced(pid: Pid) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        if status.lines().any(|line| line == "TracerPid:\t0") {
            return Ok(false);
        }
    }
    Ok(true)
}
