//! The store stops answering, goes away altogether, and comes back.
//!
//! ```text
//!   m1 founds, and so holds the store ──┐
//!   m2 joins                          ──┼── switch
//!   m3 joins                          ──┘
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use ployz_netns_tests::cluster::{Machine, Segment, freeze, nats_server};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::Value;

/// What the issue grants a change before it has to fail; the rest is for the command itself.
const REFUSAL_WAIT: Duration = Duration::from_millis(5_500);
/// What it grants until everything is connected again.
const RECONNECT_WAIT: Duration = Duration::from_secs(10);

#[test]
fn the_mesh_does_without_its_store() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = (1..=3)
            .map(|number| segment.machine(stage, number))
            .collect::<Result<Vec<_>>>()?;
        // One that can be taken away.
        machines[0].nats_server = stage.place("nats-server");
        symlink(nats_server(), &machines[0].nats_server)?;
        for machine in &mut machines {
            machine.start(stage)?;
        }
        ensure!(machines[0].code("mesh init acme")? == "OK");
        for joiner in &machines[1..] {
            joiner.join(&machines[0])?;
        }
        knows_all(&machines[1])?;
        refuse_while_it_hangs(&machines[0])?;
        restart_when_it_ended(&machines[0])?;
        mesh_from_disk(stage, &mut machines)
    })
}

fn knows_all(machine: &Machine) -> Result<()> {
    wait_until(
        format!("{} to know all machines", machine.name),
        PATIENCE,
        || {
            let list = machine.json("machine ls").unwrap_or_default();
            list["payload"]["rows"]
                .as_array()
                .is_some_and(|rows| rows.len() == 3)
        },
    )
}

/// A store that hangs is worse than one that is gone: everything that needs it says so in time, the rest goes on.
fn refuse_while_it_hangs(founder: &Machine) -> Result<()> {
    let pid = founder.store_pid()?;
    freeze(pid)?;
    let asked = now();
    let code = founder.code("machine invite create")?;
    let took = asked.elapsed();
    let seen = founder.code("machine ls")?;
    kill(pid, Signal::SIGCONT)?;
    ensure!(code == "STORE_UNAVAILABLE", "{code}");
    ensure!(took < REFUSAL_WAIT, "refused after {took:?}");
    ensure!(seen == "OK", "to look takes no store, but: {seen}");
    founder.wait_ready(RECONNECT_WAIT)
}

fn restart_when_it_ended(founder: &Machine) -> Result<()> {
    let ended = founder.store_pid()?;
    kill(ended, Signal::SIGKILL)?;
    wait_until("the store to be started again", RECONNECT_WAIT, || {
        founder.store_pid().is_ok_and(|pid| pid != ended)
    })?;
    founder.wait_ready(RECONNECT_WAIT)?;
    ensure!(founder.code("machine invite create")? == "OK");
    // Its memory was empty.
    let back = now();
    wait_until("machines to say how they are", PATIENCE, || {
        let seen = founder.json("machine inspect m2").unwrap_or_default();
        let age = seen.pointer("/payload/machine/observed_age_secs");
        age.and_then(Value::as_u64)
            .is_some_and(|age| age + 1 < back.elapsed().as_secs())
    })
}

/// The store cannot be started any more: everything goes on, also after every daemon was killed, and nothing is
/// changed. When it can, everything is as it was.
fn mesh_from_disk(stage: &Stage, machines: &mut [Machine]) -> Result<()> {
    let before = records(&machines[0])?;
    let store = machines[0].store_pid()?;
    fs::remove_file(&machines[0].nats_server)?;
    kill(store, Signal::SIGKILL)?;
    for machine in machines.iter() {
        full_mesh(machine)?;
    }
    for machine in machines.iter_mut() {
        machine.kill();
    }
    for machine in machines.iter_mut() {
        machine.start(stage)?;
    }
    for machine in machines.iter() {
        full_mesh(machine)?;
        knows_all(machine)?;
        ensure!(machine.code("mesh ready")? == "STORE_UNAVAILABLE");
        let list = machine.json("machine ls")?;
        let age = list["payload"]["view_age_secs"].as_u64();
        ensure!(age.is_some_and(|age| age >= 1), "{list}");
    }
    refuse_a_change(&machines[0], "machine invite create")?;
    refuse_a_change(&machines[0], "machine rm m3 --force --yes")?;
    symlink(nats_server(), &machines[0].nats_server)?;
    let back = now();
    for machine in machines.iter() {
        machine.wait_ready(RECONNECT_WAIT.saturating_sub(back.elapsed()))?;
    }
    ensure!(machines[0].store_pid()? != store);
    let after = records(&machines[0])?;
    ensure!(before == after, "{before:#} has become {after:#}");
    Ok(())
}

fn refuse_a_change(founder: &Machine, change: &str) -> Result<()> {
    let asked = now();
    let code = founder.code(change)?;
    let took = asked.elapsed();
    ensure!(code == "STORE_UNAVAILABLE", "{code}");
    ensure!(took < REFUSAL_WAIT, "refused after {took:?}");
    Ok(())
}

fn full_mesh(machine: &Machine) -> Result<()> {
    wait_until(format!("{} to reach all", machine.name), PATIENCE, || {
        let all = ["10.101.0.1", "10.101.1.1", "10.101.2.1"];
        all.iter().all(|target| machine.reaches(target))
    })
}

/// What is in the store, as far as an operator sees it.
fn records(founder: &Machine) -> Result<Value> {
    let mut records = vec![founder.json("machine invite list --all")?["payload"].clone()];
    for name in ["m1", "m2", "m3"] {
        let inspected = founder.json(&format!("machine inspect {name}"))?;
        records.push(inspected["payload"]["desired"].clone());
    }
    Ok(records.into())
}
