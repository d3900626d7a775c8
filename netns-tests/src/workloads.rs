//! Machines that run commands of the host, and what they run.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::{Machine, Segment, text};
use crate::command::{PATIENCE, run};
use crate::stage::Stage;
use crate::wait::wait_until;

/// A network of machines with runtime `host`; the first has founded it.
pub fn machines(stage: &Stage, segment: &Segment, count: u8) -> Result<Vec<Machine>> {
    let mut machines = (1..=count)
        .map(|number| segment.machine(stage, number))
        .collect::<Result<Vec<_>>>()?;
    for machine in &mut machines {
        machine.flags = ["--runtime", "host"].map(str::to_owned).to_vec();
        machine.start(stage)?;
    }
    ensure!(machines[0].code("mesh init acme")? == "OK");
    for joiner in &machines[1..] {
        joiner.join(&machines[0])?;
    }
    Ok(machines)
}

/// The rows of `workload ls`.
pub fn rows(machine: &Machine, flags: &str) -> Result<Vec<Value>> {
    let list = machine.json(&format!("workload ls {flags}"))?;
    Ok(list["payload"]["rows"].as_array().context("rows")?.clone())
}

/// Waits until a workload is so.
pub fn wait_state(machine: &Machine, workload: &str, state: &str) -> Result<()> {
    wait_until(format!("{workload} to be {state}"), PATIENCE, || {
        rows(machine, "").is_ok_and(|rows| {
            rows.iter()
                .any(|row| row["workload"] == workload && row["state"] == state)
        })
    })
}

/// Deploys a command, which may have spaces in it; the document.
pub fn deploy(machine: &Machine, name: &str, command: &str, flags: &str) -> Result<Value> {
    let line = format!("--json deploy service {name} {flags} --exec");
    let mut argv = machine.ctl_argv(&line);
    argv.push(command.to_owned());
    let finished = run(&argv, b"", PATIENCE)?;
    serde_json::from_str(&finished.stdout).with_context(|| finished.to_string())
}

/// As [`deploy`], which has to be done; waits until it runs.
pub fn run_workload(machine: &Machine, name: &str, command: &str, flags: &str) -> Result<()> {
    let placed = deploy(machine, name, command, flags)?;
    ensure!(text(&placed, "/code") == "OK", "{placed}");
    wait_state(machine, &format!("default/{name}"), "running")
}
