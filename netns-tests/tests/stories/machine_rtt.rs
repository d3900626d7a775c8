//! Three machines of a network, and how far each is from each.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use ployz_netns_tests::cluster::{Machine, Segment, freeze, text};
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Outcome, Stage, tell};

/// A second, a test, a burst, and ten seconds until machines tell the store.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn every_pair_is_measured_from_both_ends() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 3)?;
        ensure!(machines[0].code("mesh init acme")? == "OK");
        for machine in &machines[1..] {
            machine.join(&machines[0])?;
        }
        for machine in &machines {
            every_pair(machine)?;
        }
        limits(&machines[1])?;
        on_request(&machines[1])?;
        without_one(&machines)?;
        without_the_store(stage, &machines)
    })
}

fn every_pair(machine: &Machine) -> Result<()> {
    wait_until("all six pairs to be measured", PATIENCE, || {
        let measured = machine.json("machine rtt").unwrap_or_default();
        let rows = measured["payload"]["rows"].as_array().map(Vec::len);
        rows == Some(6) && measured["payload"]["warnings"] == serde_json::json!([])
    })?;
    let measured = machine.json("machine rtt")?;
    for row in measured["payload"]["rows"].as_array().into_iter().flatten() {
        let number = |key: &str| row[key].as_u64().unwrap_or_default();
        ensure!(text(row, "/stamps") == "kernel", "{row}");
        ensure!(number("samples") > 0 && number("min_ns") > 0, "{row}");
        ensure!(number("p50_ns") <= number("p99_ns"), "{row}");
        ensure!(number("tunnel_p50_ns") > number("p50_ns"), "{row}");
        ensure!(number("loss_fwd") + number("loss_rev") == 0, "{row}");
    }
    let matrix = machine.ctl("machine rtt --matrix")?;
    ensure!(matrix.succeeded(), "{matrix}");
    Ok(())
}

fn limits(machine: &Machine) -> Result<()> {
    ensure!(machine.code("machine rtt --max-p99 10s")? == "OK");
    let slow = machine.ctl("machine rtt --max-p99 1us")?;
    ensure!(slow.status.code() == Some(1), "{slow}");
    ensure!(machine.code("machine rtt nobody")? == "MACHINE_NOT_FOUND");
    let one = machine.json("machine rtt m1")?;
    let rows = one["payload"]["rows"].as_array().map(Vec::len);
    ensure!(rows == Some(4), "{one}");
    Ok(())
}

/// As many new ones as were asked for, of every pair.
fn on_request(machine: &Machine) -> Result<()> {
    let fresh = machine.json("machine rtt --count 60")?;
    let rows = fresh["payload"]["rows"].as_array();
    ensure!(rows.map(Vec::len) == Some(6), "{fresh}");
    for row in rows.into_iter().flatten() {
        ensure!(row["samples"] == 60, "{row}");
        ensure!(row["age_secs"] == 0, "{row}");
    }
    let too_many = machine.ctl("machine rtt --count 257")?;
    ensure!(too_many.status.code() == Some(2), "{too_many}");
    Ok(())
}

/// Whoever is gone is named, and the others are measured.
fn without_one(machines: &[Machine]) -> Result<()> {
    let pid = machines[2].pid()?;
    freeze(pid)?;
    let measured = machines[0].json("machine rtt --count 5");
    kill(pid, Signal::SIGCONT)?;
    let measured = measured?;
    let rows = measured["payload"]["rows"].as_array().map_or(0, Vec::len);
    // Those of the two that are there, and what the third told the store earlier.
    ensure!((2..=4).contains(&rows), "{measured}");
    let warnings = measured["payload"]["warnings"].to_string();
    ensure!(warnings.contains("m3 could not measure: "), "{warnings}");
    ensure!(
        warnings.contains("m1 to m3: unmeasured, none of"),
        "{warnings}"
    );
    Ok(())
}

/// It takes no store to measure.
fn without_the_store(_: &Stage, machines: &[Machine]) -> Result<()> {
    let store = machines[0].store_pid()?;
    kill(store, Signal::SIGSTOP)?;
    let alone = machines[2].json("machine rtt");
    kill(store, Signal::SIGCONT)?;
    let alone = alone?;
    let rows = alone["payload"]["rows"].as_array().map(Vec::len);
    ensure!(rows == Some(6), "{alone}");
    Ok(())
}
