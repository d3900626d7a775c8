//! A process that is recognised after we were restarted: a number alone may be another's by then.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process, identified across reboots and reused numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Since boot, in the kernel's ticks.
    started_ticks: u64,
    boot_id: String,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Some(Self {
            pid,
            started_ticks: started_ticks(pid)?,
            boot_id: boot_id()?,
        })
    }

    /// A process of this host whose command line has this argument, at any position. Processes of containers are left
    /// out: their paths mean other files.
    pub(crate) fn with_argument(argument: &OsStr) -> Option<Self> {
        let has_it = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0)
                .any(|word| word == argument.as_bytes())
        };
        fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(has_it)
            .find(|pid| is_same_host(*pid))
            .and_then(Self::of)
    }

    /// Whether that very process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal. A process that has ended is no error.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid).map_err(|_| Errno::ESRCH)?;
        match kill(Pid::from_raw(pid), signal) {
            Err(Errno::ESRCH) => Ok(()),
            result => result,
        }
    }
}

/// The start time of a process; `None` if it has ended, also while its exit status is still unread.
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything. proc(5): state is 3, starttime is 22.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(22 - 4)?.parse().ok()
}

/// Whether a process is in the PID namespace of this daemon.
fn is_same_host(pid: u32) -> bool {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/pid")).ok();
    let own = namespace("self");
    own.is_some() && own == namespace(&pid.to_string())
}

fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_an_argument_of_its_own() {
        let argument = format!("60.{}", std::process::id());
        assert_eq!(Process::with_argument(argument.as_ref()), None);
        let mut child = std::process::Command::new("sleep")
            .arg(&argument)
            .spawn()
            .unwrap();
        // Between the new program's memory and its arguments there is a moment in which it has none.
        const LOOKS: usize = 10_000;
        let look = || Process::with_argument(argument.as_ref());
        let found = std::iter::repeat_with(look).take(LOOKS).flatten().next();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.map(|process| process.pid), Some(child.id()));
    }

    #[test]
    fn a_process_is_told_from_its_number_and_from_its_remains() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        let earlier = Process {
            started_ticks: own.started_ticks - 1,
            ..own
        };
        assert!(!earlier.is_alive());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while Process::of(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert!(
            child.wait().unwrap().success(),
            "its remains were no process"
        );
    }
}
