//! The store stops answering, goes away altogether, and comes back.
//!
//! ```text
//!   m1 founds, and so holds the store ──┐
//!   m2 joins                          ──┼── switch
//!   m3 joins                          ──┘
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use ployz_netns_tests::cluster::{Machine, Segment, freeze};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};

/// What the issue grants a change before it has to fail; the rest is for the command itself.
const REFUSAL_WAIT: Duration = Duration::from_millis(5_500);
/// What it grants until everything is connected again.
const RECONNECT_WAIT: Duration = Duration::from_secs(10);

#[test]
fn the_mesh_does_without_its_store() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = segment.running_machines(stage, 3)?;
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
    Ok(())
}

/// Neither store nor founder: the others find each other from what lies on their disks.
fn mesh_from_disk(stage: &Stage, machines: &mut [Machine]) -> Result<()> {
    let store = machines[0].store_pid()?;
    machines[0].kill();
    kill(store, Signal::SIGKILL)?;
    machines[1].kill();
    machines[1].start(stage)?;
    wait_until("m2 to reach m3", PATIENCE, || {
        machines[1].reaches("10.101.2.1")
    })?;
    knows_all(&machines[1])?;
    ensure!(machines[1].code("mesh ready")? == "STORE_UNAVAILABLE");
    machines[0].start(stage)?;
    for machine in machines.iter() {
        machine.wait_ready(RECONNECT_WAIT)?;
    }
    ensure!(machines[0].store_pid()? != store);
    Ok(())
}
