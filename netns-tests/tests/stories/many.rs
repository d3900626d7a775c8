//! Twenty machines join at once.
//!
//! ```text
//!   m1 founds ──────────────┐
//!   m2 … m21 join at once ──┴── switch
//! ```

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, tell};
use serde_json::Value;

const JOINERS: u8 = 20;
/// Two processors run all of it.
const MESH_WAIT: Duration = Duration::from_secs(120);

#[test]
fn twenty_machines_join_at_once() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 1 + JOINERS)?;
        let (founder, joiners) = (&machines[0], &machines[1..]);
        ensure!(founder.code("mesh init acme")? == "OK");
        let tokens = joiners
            .iter()
            .map(|_| founder.invite(""))
            .collect::<Result<Vec<_>>>()?;
        let begin = now();
        join_at_once(joiners, &tokens)?;
        show("the last of 20 was in", begin.elapsed());
        for machine in &machines {
            wait_until(
                format!("{} to see all others", machine.name),
                MESH_WAIT,
                || sessions(machine) == machines.len(),
            )?;
        }
        show("a full mesh of 21", begin.elapsed());
        everything_is_unique(founder, machines.len())?;
        reach_each_other(&machines)
    })
}

fn join_at_once(joiners: &[Machine], tokens: &[String]) -> Result<()> {
    let answers = thread::scope(|scope| {
        let importing: Vec<_> = joiners
            .iter()
            .zip(tokens)
            .map(|(joiner, token)| scope.spawn(|| joiner.import(token)))
            .collect();
        let join =
            |it: thread::ScopedJoinHandle<'_, _>| it.join().unwrap_or_else(|it| resume_unwind(it));
        importing
            .into_iter()
            .map(join)
            .collect::<Vec<Result<Value>>>()
    });
    for answer in answers {
        let answer = answer?;
        ensure!(answer["ok"] == true, "{answer}");
    }
    Ok(())
}

/// With how many machines this one has a session, itself among them.
fn sessions(machine: &Machine) -> usize {
    let list = machine.json("machine ls").unwrap_or_default();
    let rows = list["payload"]["rows"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    rows.iter().filter(|row| row["reachable"] == true).count()
}

fn everything_is_unique(founder: &Machine, count: usize) -> Result<()> {
    let list = founder.json("machine ls")?;
    let rows = list["payload"]["rows"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for field in ["/id", "/name", "/overlay_ip", "/overlay_ip6", "/subnet"] {
        let values: BTreeSet<String> = rows.iter().map(|row| text(row, field)).collect();
        ensure!(
            values.len() == count && !values.contains(""),
            "{field}: {values:?}"
        );
    }
    Ok(())
}

/// A ring of pings: everybody sends, and everybody is sent to.
fn reach_each_other(machines: &[Machine]) -> Result<()> {
    let addresses = machines
        .iter()
        .map(|machine| Ok(text(&machine.json("status")?, "/payload/overlay_ip")))
        .collect::<Result<Vec<_>>>()?;
    for (machine, next) in machines.iter().zip(addresses.iter().cycle().skip(1)) {
        ensure!(
            machine.reaches(next),
            "{} does not reach {next}",
            machine.name
        );
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show(what: &str, took: Duration) {
    println!("{what} after {took:.1?}");
}
