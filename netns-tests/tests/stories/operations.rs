//! Long work is told stage by stage: one machine gets in, and for the next one there is no subnet left.
//!
//! ```text
//!   m1 founds, with room for two ──┐
//!   m2 joins                     ──┼── switch
//!   m3 cannot                    ──┘
//! ```
//!
//! And on the same machines, with room for all: m1 is killed while it lets m3 in.

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Outcome, tell};
use serde_json::Value;

#[test]
fn joins_are_told_stage_by_stage() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = segment.running_machines(stage, 3)?;
        let founding = "mesh init acme --cluster-cidr 10.101.0.0/29 --subnet-prefix-len 30";
        ensure!(machines[0].code(founding)? == "OK");
        ensure!(operations(&machines[0])?.is_empty(), "nothing was done yet");
        machines[1].join(&machines[0])?;
        let token = machines[0].invite("")?;
        let refused = machines[2].import(&token)?;
        ensure!(text(&refused, "/code") == "CONFLICT", "{refused}");
        for machine in &machines[..2] {
            told(machine)?;
        }
        // What is over stays as it is, whoever is restarted.
        machines[0].kill();
        machines[0].start(stage)?;
        machines[0].wait_ready(Duration::from_secs(10))?;
        told(&machines[0])
    })
}

/// A store that takes its time, and a coordinator that is killed halfway: the work is told to be interrupted, and what
/// it says to do next mends it.
#[test]
fn a_join_that_was_cut_off_is_told_and_mended() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = segment.running_machines(stage, 3)?;
        // Or a single packet could be more than the bucket below holds.
        machines[0].netns.mtu("lo", 1500)?;
        ensure!(machines[0].code("mesh init acme")? == "OK");
        machines[1].join(&machines[0])?;
        let token = machines[0].invite("")?;
        // The founder reaches its own store this way, and nobody else does.
        machines[0]
            .netns
            .run("tc qdisc add dev lo root tbf rate 64kbit burst 1600 latency 30s")?;
        thread::scope(|scope| {
            let [founder, other, joiner] = &mut machines[..] else {
                unreachable!()
            };
            let (joiner, token) = (&*joiner, &token);
            let importing = scope.spawn(move || joiner.import(token));
            wait_until("the join to be under way", PATIENCE, || {
                last_state(other) == "running"
            })?;
            founder.kill();
            let refused = importing
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))?;
            ensure!(refused["ok"] == false, "{refused}");
            Ok(())
        })?;
        machines[0].netns.run("tc qdisc del dev lo root")?;
        machines[0].start(stage)?;
        wait_until("it to be told", PATIENCE, || {
            last_state(&machines[1]) == "interrupted"
        })?;
        let joined = machines[2].import(&token)?;
        ensure!(joined["ok"] == true, "{joined}");
        ensure!(last_state(&machines[0]) == "done");
        Ok(())
    })
}

fn last_state(machine: &Machine) -> String {
    let operations = operations(machine).unwrap_or_default();
    operations
        .last()
        .map(|last| text(last, "/state"))
        .unwrap_or_default()
}

/// Every machine of the network can see it, and a command that watches it ends as it did.
fn told(machine: &Machine) -> Result<()> {
    let operations = operations(machine)?;
    let [joined, refused] = &operations[..] else {
        anyhow::bail!("{operations:?}");
    };
    for (operation, state, code, stages, status) in [
        (
            joined,
            "done",
            "OK",
            "name done, addresses done, record done",
            0,
        ),
        (
            refused,
            "failed",
            "CONFLICT",
            "name done, addresses failed",
            1,
        ),
    ] {
        let id = text(operation, "/operation_id");
        let document = machine.json(&format!("operation get {id}"))?;
        ensure!(text(&document, "/payload/state") == state, "{document}");
        ensure!(text(&document, "/payload/code") == code, "{document}");
        ensure!(
            text(&document, "/payload/operation") == "machine-join",
            "{document}"
        );
        ensure!(seen(&document["payload"]) == stages, "{document}");
        ensure!(!text(&document, "/payload/next").is_empty(), "{document}");
        let watched = machine.ctl(&format!("operation watch {id}"))?;
        ensure!(watched.status.code() == Some(status), "{watched}");
    }
    let nobody = machine.ctl("operation get 01JX3Z5E9V5R2K7Q8W4N6T1M0B")?;
    ensure!(nobody.status.code() == Some(2), "{nobody}");
    Ok(())
}

fn operations(machine: &Machine) -> Result<Vec<Value>> {
    let list = machine.json("operation list")?;
    ensure!(list["ok"] == true, "{list}");
    let operations = list["payload"]["operations"].as_array().cloned();
    Ok(operations.unwrap_or_default())
}

fn seen(operation: &Value) -> String {
    let stages = operation["stages"].as_array().cloned().unwrap_or_default();
    let words: Vec<String> = stages
        .iter()
        .map(|stage| format!("{} {}", text(stage, "/stage"), text(stage, "/state")))
        .collect();
    words.join(", ")
}
