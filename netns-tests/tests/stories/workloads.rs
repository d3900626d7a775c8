//! Workloads on machines without systemd: processes that outlive their daemon.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::workloads::{deploy, machines, rows, run_workload, wait_state};
use ployz_netns_tests::{Backend, Outcome, tell};
use serde_json::Value;

/// Clients that deploy at once, as the issue has it.
const CLIENTS: usize = 20;

#[test]
fn a_workload_runs_outlives_its_daemon_and_is_started_again() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = machines(stage, &segment, 2)?;
        let place = stage.place("mounted");
        let command = "echo hello $GREETED; date +%N >> $AT/beat; exec sleep 1000";
        let flags = format!(
            "--machine m2 --env GREETED=topsecret --env AT={0} --volume data:{0}",
            place.display()
        );
        run_workload(&machines[0], "web", command, &flags)?;
        let again = deploy(&machines[0], "web", command, &flags)?;
        ensure!(text(&again, "/code") == "CONFLICT", "{again}");
        seen_from_everywhere(&machines)?;

        let before = process(&machines[1])?;
        machines[1].stop()?;
        machines[1].start(stage)?;
        wait_state(&machines[0], "default/web", "running")?;
        ensure!(process(&machines[1])? == before, "it was adopted");

        machines[1].netns.run(&format!("kill -KILL -- -{before}"))?;
        wait_until("it to be started again", PATIENCE, || {
            process(&machines[1]).is_ok_and(|pid| pid != before)
        })?;
        wait_state(&machines[0], "default/web", "running")?;
        let beats = volume(&machines[1]).join("beat");
        ensure!(
            fs::read_to_string(beats)?.lines().count() == 2,
            "its volume is kept"
        );

        removed(&machines)
    })
}

fn seen_from_everywhere(machines: &[Machine]) -> Result<()> {
    let list = machines[1].json("machine ls")?;
    let row = list["payload"]["rows"]
        .as_array()
        .and_then(|rows| rows.get(1));
    ensure!(row.is_some_and(|row| row["workloads"] == 1), "{list}");
    ensure!(rows(&machines[1], "--machine m1")?.is_empty());
    ensure!(rows(&machines[1], "--machine m2")?.len() == 1);
    let inspect = machines[0].json("workload inspect web")?;
    ensure!(inspect["payload"]["env"][1] == "GREETED", "{inspect}");
    ensure!(!inspect.to_string().contains("topsecret"), "{inspect}");
    let logs = machines[0].json("workload logs web")?;
    ensure!(logs["payload"]["lines"][0] == "hello topsecret", "{logs}");
    for machine in machines {
        ensure!(!machine.logged().contains("topsecret"), "{}", machine.name);
    }
    ensure!(machines[0].code("workload logs nothing")? == "WORKLOAD_NOT_FOUND");
    Ok(())
}

fn removed(machines: &[Machine]) -> Result<()> {
    let held = machines[0].json("machine standby m2")?;
    ensure!(text(&held, "/code") == "MACHINE_HOLDS_WORKLOADS", "{held}");
    ensure!(text(&held, "/message").contains("default/web"), "{held}");
    let draining = machines[0].json("machine drain m2 --wait --timeout 1s")?;
    ensure!(text(&draining, "/code") == "TIMEOUT", "{draining}");
    let pid = process(&machines[1])?;
    ensure!(machines[0].code("workload rm web")? == "OK");
    let drained = machines[0].json("machine drain m2 --wait")?;
    ensure!(text(&drained, "/payload/to") == "drained", "{drained}");
    wait_until("its process to be gone", PATIENCE, || {
        !fs::exists(format!("/proc/{pid}")).unwrap_or(true)
    })?;
    ensure!(
        volume(&machines[1]).join("beat").exists(),
        "what it kept stays"
    );
    let refused = deploy(&machines[0], "web", "true", "--machine m2")?;
    ensure!(text(&refused, "/code") == "INVALID_TRANSITION", "{refused}");
    ensure!(
        machines[0].code("workload inspect web")? == "WORKLOAD_NOT_FOUND",
        "nothing is left"
    );
    let elsewhere = deploy(&machines[0], "web", "exit 0", "")?;
    ensure!(text(&elsewhere, "/payload/machine") == "m1", "{elsewhere}");
    wait_state(&machines[0], "default/web", "exited")?;
    ensure!(machines[0].code("workload rm web")? == "OK");
    Ok(())
}

/// The process that runs the one workload of a machine.
fn process(machine: &Machine) -> Result<u64> {
    let instance = fs::read_dir(machine.data_dir.join("workloads"))?
        .next()
        .context("an instance")??;
    let text = fs::read_to_string(instance.path().join("process.json"))?;
    let process: Value = serde_json::from_str(&text)?;
    let pid = process["pid"].as_u64().context("pid")?;
    ensure!(fs::exists(format!("/proc/{pid}"))?, "it runs");
    Ok(pid)
}

fn volume(machine: &Machine) -> std::path::PathBuf {
    machine.data_dir.join("volumes/default/web/data")
}

#[test]
fn nothing_is_placed_after_a_drain_was_answered() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = machines(stage, &segment, 2)?;
        let founder = &machines[0];
        let held = std::thread::scope(|scope| -> Result<Vec<Value>> {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    scope.spawn(move || {
                        let name = format!("w{number}");
                        deploy(founder, &name, "sleep 1000", "--machine m2")
                    })
                })
                .collect();
            wait_until("the first of them to be placed", PATIENCE, || {
                rows(founder, "").is_ok_and(|rows| !rows.is_empty())
            })?;
            let drained = founder.json("machine drain m2")?;
            ensure!(text(&drained, "/code") == "OK", "{drained}");
            let mut placed = 0;
            for client in clients {
                let answer = client.join().expect("a client")?;
                match text(&answer, "/code").as_str() {
                    "OK" => placed += 1,
                    code => ensure!(code == "INVALID_TRANSITION", "{answer}"),
                }
            }
            let held = drained["payload"]["holds"]
                .as_array()
                .context("holds")?
                .clone();
            ensure!(held.len() == placed, "{placed} were placed, {drained}");
            Ok(held)
        })?;
        let after = founder.json("machine drain m2")?;
        ensure!(
            after["payload"]["holds"].as_array() == Some(&held),
            "{after}"
        );
        for workload in &held {
            let name = workload.as_str().context("a name")?;
            ensure!(founder.code(&format!("workload rm {name}"))? == "OK");
        }
        let drained = founder.json("machine drain --wait m2")?;
        ensure!(text(&drained, "/payload/to") == "drained", "{drained}");
        wait_until("all of them to have ended", Duration::from_secs(30), || {
            let left = fs::read_dir(machines[1].data_dir.join("workloads"));
            // Those that were gone before the machine had heard of them have left no directory either.
            left.map_or(true, |mut left| left.next().is_none())
        })
    })
}
