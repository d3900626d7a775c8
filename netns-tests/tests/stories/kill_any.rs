//! Any daemon is killed and comes back: the others do not notice, and it is who it was.
//!
//! ```text
//!   m1 founds, and so holds the store ──┐
//!   m2 joins                          ──┼── switch
//!   m3 joins                          ──┘
//! ```

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::Value;

/// What the issue grants a daemon to take up its traffic again.
const RESUME_WAIT: Duration = Duration::from_secs(2);
/// Longer than a daemon takes to be killed and to come back: fifty a second, for as long as that is granted twice.
const PINGS: &str = "ping -n -q -i 0.02 -c 200 -W 1";

#[test]
fn any_daemon_may_be_killed() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = segment.running_machines(stage, 3)?;
        ensure!(machines[0].code("mesh init acme")? == "OK");
        machines[1].join(&machines[0])?;
        machines[2].join(&machines[0])?;
        for at in 0..3 {
            for machine in &machines {
                machine.wait_ready(PATIENCE)?;
                meets_all(machine, PATIENCE)?;
            }
            machines.rotate_left(1);
            let (killed, others) = machines.split_last_mut().context("three machines")?;
            kill_and_resume(stage, killed, others)
                .with_context(|| format!("m{} is killed", at + 1))?;
        }
        Ok(())
    })
}

/// Everything that must be as it was. The backend's process as well, where the store is.
fn identity(machine: &Machine) -> Result<Value> {
    let status = machine.json("status")?;
    let inspected = machine.json(&format!("machine inspect {}", machine.name))?;
    let peers = machine
        .netns
        .run(&format!("wg show {} allowed-ips", machine.interface))?;
    let mut peers: Vec<&str> = peers.stdout.lines().collect();
    peers.sort_unstable();
    ensure!(peers.len() == 2, "{peers:?}");
    Ok(serde_json::json!({
        "id": status.pointer("/payload/id"),
        "network": status.pointer("/payload/network_id"),
        "storage": status.pointer("/payload/storage"),
        "desired": inspected.pointer("/payload/desired"),
        "peers": peers,
    }))
}

fn kill_and_resume(stage: &Stage, killed: &mut Machine, others: &[Machine]) -> Result<()> {
    let [one, other] = others else {
        anyhow::bail!("two others");
    };
    let before = identity(killed)?;
    let target = text(&other.json("status")?, "/payload/overlay_ip");
    let pings = thread::scope(|scope| -> Result<_> {
        let pinging = scope.spawn(|| one.netns.run(&format!("{PINGS} {target}")));
        killed.kill();
        let begin = now();
        killed.start(stage)?;
        meets_all(killed, RESUME_WAIT.saturating_sub(begin.elapsed()))?;
        show(&killed.name, begin.elapsed());
        pinging.join().unwrap_or_else(|panic| resume_unwind(panic))
    })?;
    ensure!(
        pings.stdout.contains("200 received"),
        "the others' traffic stopped: {}",
        pings.stdout
    );
    killed.wait_ready(RESUME_WAIT)?;
    let after = identity(killed)?;
    ensure!(before == after, "{before:#} has become {after:#}");
    Ok(())
}

fn meets_all(machine: &Machine, patience: Duration) -> Result<()> {
    let all = ["10.101.0.1", "10.101.1.1", "10.101.2.1"];
    wait_until(format!("{} to reach all", machine.name), patience, || {
        all.iter().all(|target| machine.reaches(target))
    })
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show(name: &str, took: Duration) {
    println!("{name} was back after {took:.1?}");
}
