//! Processor time and memory, read from /proc.
//!
//! Other work on the machine is told apart by its place in the process tree: whatever does not
//! descend from the harness and is no kernel thread is foreign. Kernel threads stay with the
//! machine's own time, since they do our network work.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::clock;

/// USER_HZ: the unit of /proc, 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;
const KTHREADD: i32 = 2;

/// Counters at one moment, in seconds since boot.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    at: Instant,
    daemons: f64,
    busy: f64,
    foreign: f64,
    steal: f64,
}

/// The usage between two moments, in seconds of processor time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) elapsed: Duration,
    pub(crate) daemons: f64,
    /// All processors, without foreign work.
    pub(crate) machine: f64,
    pub(crate) foreign: f64,
    pub(crate) steal: f64,
}

impl Usage {
    pub(crate) fn read(daemons: &[i32]) -> Result<Self> {
        let processes = processes()?;
        let of_daemons = daemons.iter().filter_map(|pid| processes.get(pid));
        let daemons = of_daemons.map(|process| process.own).sum();
        let ours = i32::try_from(std::process::id())?;
        let is_foreign = |pid: i32| !descends(&processes, pid, ours) && !is_kernel(&processes, pid);
        let foreign = processes.iter().filter(|(pid, _)| is_foreign(**pid));
        // The time of children that ended is in their parents: the sum telescopes.
        let foreign = foreign
            .map(|(_, process)| process.own + process.reaped)
            .sum();
        let machine = std::fs::read_to_string("/proc/stat")?;
        let (busy, steal) = parse_machine(&machine).context("/proc/stat")?;
        Ok(Self {
            at: clock::now(),
            daemons,
            busy,
            foreign,
            steal,
        })
    }

    pub(crate) fn since(&self, earlier: &Self) -> Spent {
        let foreign = (self.foreign - earlier.foreign).max(0.0);
        Spent {
            elapsed: self.at.duration_since(earlier.at),
            daemons: self.daemons - earlier.daemons,
            machine: (self.busy - earlier.busy - foreign).max(0.0),
            foreign,
            steal: self.steal - earlier.steal,
        }
    }
}

impl Spent {
    /// Processors' worth of other work, stolen time included.
    pub(crate) fn disturbance(&self) -> f64 {
        (self.foreign + self.steal) / self.elapsed.as_secs_f64()
    }
}

/// The most memory that a process has held so far, in MiB.
pub(crate) fn peak_memory_mib(pid: i32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no such line")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// The processor time of the calling thread so far.
pub(crate) fn of_this_thread() -> Result<Duration> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = schedstat.split(' ').next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

#[derive(Debug, PartialEq)]
struct Process {
    parent: i32,
    /// User and system time of all its threads, ended ones included.
    own: f64,
    /// The same of its children that have ended and been waited for.
    reaped: f64,
}

fn processes() -> Result<BTreeMap<i32, Process>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse() else {
            continue;
        };
        // It may have ended since the directory was read.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        found.extend(parse_process(&stat).map(|process| (pid, process)));
    }
    Ok(found)
}

/// proc_pid_stat(5); the name in parentheses may contain spaces and parentheses.
fn parse_process(stat: &str) -> Option<Process> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let seconds = |index: usize| -> Option<f64> {
        Some(fields.get(index)?.parse::<f64>().ok()? / TICKS_PER_SECOND)
    };
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        own: seconds(11)? + seconds(12)?,
        reaped: seconds(13)? + seconds(14)?,
    })
}

/// Busy and stolen seconds of all processors.
fn parse_machine(stat: &str) -> Option<(f64, f64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks.as_slice() else {
        return None;
    };
    Some((
        (user + nice + system + irq + softirq) / TICKS_PER_SECOND,
        steal / TICKS_PER_SECOND,
    ))
}

fn descends(processes: &BTreeMap<i32, Process>, pid: i32, from: i32) -> bool {
    let parent = |pid: &i32| processes.get(pid).map(|process| process.parent);
    std::iter::successors(Some(pid), parent).any(|ancestor| ancestor == from)
}

fn is_kernel(processes: &BTreeMap<i32, Process>, pid: i32) -> bool {
    descends(processes, pid, KTHREADD)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a b) c) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 9 0 1 2 3";

    #[test]
    fn a_process_is_read_past_the_parentheses_in_its_name() {
        let expected = Process {
            parent: 7,
            own: 2.0,
            reaped: 0.5,
        };
        assert_eq!(parse_process(STAT), Some(expected));
        assert_eq!(parse_process("42 (short) S 7"), None);
    }

    #[test]
    fn busy_time_leaves_out_idle_iowait_and_steal() {
        let stat = "cpu  100 200 300 9999 8888 10 20 70 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(parse_machine(stat), Some((6.3, 0.7)));
    }

    #[test]
    fn the_harness_itself_is_not_foreign() {
        let processes = processes().unwrap();
        let ours = i32::try_from(std::process::id()).unwrap();
        assert!(descends(&processes, ours, ours));
        assert!(!descends(&processes, 1, ours));
    }
}
