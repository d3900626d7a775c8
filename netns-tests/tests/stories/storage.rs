//! The store is given to three machines under writes, outlives any one of them, and lets the founder go.
//!
//! ```text
//!   m1 founds, m2, m3 and m4 join ── switch
//! ```

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::{PATIENCE, run};
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::Value;

/// A leader that has gone is replaced by an election, whose candidates wait up to nine seconds; then clients look for
/// it.
const ELECTION_WAIT: Duration = Duration::from_secs(40);

#[test]
fn the_store_outlives_any_machine_that_holds_it() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = network(stage, &segment, 4)?;
        refused_before_anything_is_touched(&machines)?;
        three_hold_it(&machines)?;
        any_of_them_may_die(stage, &mut machines)?;
        the_founder_is_removed(&mut machines)?;
        another_one_takes_its_place(&machines)
    })
}

#[test]
fn the_founder_hands_the_store_over_and_leaves() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = network(stage, &segment, 2)?;
        let [first, second] = &machines[..] else {
            anyhow::bail!("two machines");
        };
        let moved = first.json("machine storage promote m2 --replicas 1")?;
        ensure!(moved["ok"] == true, "{moved}");
        wait_holders(second, &["m2"])?;
        for file in ["ca.json", "nats", "nats-former", "storage-change.json"] {
            wait_until(format!("{file} to be gone from m1"), PATIENCE, || {
                !first.data_dir.join(file).exists()
            })?;
        }
        let removed = second.json("machine rm m1 --yes")?;
        ensure!(removed["ok"] == true, "{removed}");
        ensure!(second.code("machine label m2 alone=yes")? == "OK");
        Ok(())
    })
}

#[test]
fn a_coordinator_that_dies_leaves_the_store_what_it_was_or_moved() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = network(stage, &segment, 3)?;
        for (moment, replicas) in MOMENTS.iter().zip([1, 1, 1, 3]) {
            killed_at(stage, &mut machines, *moment, replicas)?;
        }
        Ok(())
    })
}

/// Machines in a network that the first one has founded, each with a session with all others.
fn network(stage: &Stage, segment: &Segment, count: u8) -> Result<Vec<Machine>> {
    let machines = segment.running_machines(stage, count)?;
    let (founder, joiners) = machines.split_first().context("one at least")?;
    ensure!(founder.code("mesh init acme")? == "OK");
    for joiner in joiners {
        joiner.join(founder)?;
        joiner.wait_ready(PATIENCE)?;
    }
    Ok(machines)
}

fn refused_before_anything_is_touched(machines: &[Machine]) -> Outcome {
    let founder = &machines[0];
    for (line, code) in [
        ("promote m2 --replicas 3", "INVALID_REPLICAS"),
        ("promote m2 m9 --replicas 3", "MACHINE_NOT_FOUND"),
        ("demote m1", "INVALID_REPLICAS"),
    ] {
        let refused = founder.json(&format!("machine storage {line}"))?;
        ensure!(text(&refused, "/code") == code, "{line}: {refused}");
    }
    let planned = founder.json("machine storage promote m2 m3 --dry-run")?;
    let steps = planned["payload"]["plan"].as_array().context("a plan")?;
    ensure!(
        steps.len() == 6 && planned["payload"]["operation_id"].is_null(),
        "{planned}"
    );
    ensure!(!machines[1].data_dir.join("nats-next").exists());
    wait_holders(founder, &["m1"])
}

/// Every write that was acknowledged while the store moved is in it.
fn three_hold_it(machines: &[Machine]) -> Outcome {
    let writer = Writer::start(&machines[0], "m4");
    let began = now();
    let promoted = machines[0].json("machine storage promote m2 m3 --replicas 3")?;
    ensure!(promoted["ok"] == true, "{promoted}");
    ensure!(
        promoted["payload"]["promoted"].as_array().map(Vec::len) == Some(2),
        "{promoted}"
    );
    show("1 to 3", began.elapsed());
    wait_holders(&machines[0], &["m1", "m2", "m3"])?;
    for machine in machines {
        machine.wait_ready(PATIENCE)?;
    }
    let (acknowledged, tried) = writer.stop()?;
    let shown = machines[1].json("machine inspect m4")?;
    let kept: u64 = text(&shown, "/payload/machine/labels/n").parse()?;
    show_count("acknowledged writes", acknowledged);
    ensure!(
        acknowledged > 0 && (acknowledged..=tried).contains(&kept),
        "{kept} of {acknowledged}, {tried}"
    );
    let operations = machines[2].json("operation list")?;
    let rows = operations["payload"]["operations"]
        .as_array()
        .context("rows")?;
    let change = rows
        .iter()
        .find(|row| row["operation"] == "machine-storage");
    let change = change.context("the change is told in the new store")?;
    ensure!(change["state"] == "done", "{change}");
    Ok(())
}

fn any_of_them_may_die(stage: &Stage, machines: &mut [Machine]) -> Outcome {
    for dead in 0..3 {
        let server = machines[dead].store_pid()?;
        machines[dead].kill();
        kill(server, Signal::SIGKILL)?;
        let began = now();
        let writer = &machines[(dead + 1) % 3];
        wait_until(
            format!("writes without m{}", dead + 1),
            ELECTION_WAIT,
            || {
                writer
                    .code(&format!("machine label m4 dead={dead}"))
                    .is_ok_and(|code| code == "OK")
            },
        )?;
        show(
            &format!("writes again without m{}", dead + 1),
            began.elapsed(),
        );
        machines[dead].start(stage)?;
        machines[dead].wait_ready(ELECTION_WAIT)?;
        wait_holders(&machines[(dead + 1) % 3], &["m1", "m2", "m3"])?;
    }
    Ok(())
}

/// It is off for good, and the last one that may be missing.
fn the_founder_is_removed(machines: &mut [Machine]) -> Outcome {
    let server = machines[0].store_pid()?;
    machines[0].kill();
    kill(server, Signal::SIGKILL)?;
    let second = &machines[1];
    let mut removed = Value::Null;
    wait_until("the founder to be removed", ELECTION_WAIT, || {
        removed = second
            .json("machine rm m1 --force --yes")
            .unwrap_or_default();
        removed["ok"] == true
    })
    .with_context(|| removed.to_string())?;
    wait_until("nobody to know the founder", PATIENCE, || {
        second
            .code("machine inspect m1")
            .is_ok_and(|code| code == "MACHINE_NOT_FOUND")
    })?;
    let refused = second.json("machine rm m3 --yes --force")?;
    ensure!(refused["code"] == "QUORUM_AT_RISK", "{refused}");
    ensure!(
        text(&refused, "/hint").contains("machine storage promote"),
        "{refused}"
    );
    Ok(())
}

/// One that the store counts on does not leave by itself; once it does no more, it does.
fn another_one_takes_its_place(machines: &[Machine]) -> Outcome {
    let promoted = machines[1].json("machine storage promote m4 --replicas 3")?;
    ensure!(promoted["ok"] == true, "{promoted}");
    wait_holders(&machines[1], &["m2", "m3", "m4"])?;
    let refused = machines[1].json("machine rm m3 --yes")?;
    ensure!(refused["code"] == "CONFLICT", "{refused}");
    ensure!(
        text(&refused, "/hint").contains("machine storage promote or demote"),
        "{refused}"
    );
    let mut demoted = Value::Null;
    wait_until("m2 to hold the store alone", ELECTION_WAIT, || {
        demoted = machines[1]
            .json("machine storage demote m3 m4")
            .unwrap_or_default();
        demoted["ok"] == true
    })
    .with_context(|| demoted.to_string())?;
    wait_holders(&machines[1], &["m2"])?;
    let removed = machines[1].json("machine rm m3 --yes")?;
    ensure!(removed["ok"] == true, "{removed}");
    Ok(())
}

/// What there is on the coordinator's disk when it is killed: a journal, a next store, a part of its copy, and the word
/// that it counts.
const MOMENTS: [(&str, &str); 4] = [
    ("storage-change.json", ""),
    ("nats-next/config.json", ""),
    ("nats-next/store/jetstream/STORE/streams/KV_machines", ""),
    ("network.json", "\"store_epoch\": "),
];

/// A daemon that is killed in the middle of a change, and started again.
fn killed_at(
    stage: &Stage,
    machines: &mut [Machine],
    (file, says): (&str, &str),
    replicas: u64,
) -> Outcome {
    let first = &mut machines[0];
    let path = first.data_dir.join(file);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let mut asking = ask_and_leave(first, "machine storage promote m2 m3 --replicas 3")?;
    let has_come = || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        path.exists() && (says.is_empty() || (text != before && text.contains(says)))
    };
    wait_until("the coordinator's last moment", ELECTION_WAIT, has_come)?;
    first.kill();
    asking.kill()?;
    asking.wait()?;
    first.start(stage)?;
    let journal = first.data_dir.join("storage-change.json");
    wait_until("the change to be over", ELECTION_WAIT, || !journal.exists())?;
    let mut label = Value::Null;
    wait_until("writes to go on", ELECTION_WAIT, || {
        label = first.json("machine label m3 after=all").unwrap_or_default();
        label["ok"] == true
    })
    .with_context(|| label.to_string())?;
    let list = first.json("machine storage ls")?;
    ensure!(
        list["payload"]["replicas"] == replicas,
        "killed at {file}: {list}"
    );
    if replicas == 3 {
        wait_holders(first, &["m1", "m2", "m3"])?;
        let back = first.json("machine storage demote m2 m3")?;
        ensure!(back["ok"] == true, "{back}");
    }
    wait_holders(first, &["m1"])?;
    for machine in &machines[1..] {
        wait_until("nothing to be left of it", PATIENCE, || {
            !machine.data_dir.join("nats-next").exists()
                && !machine.data_dir.join("ca.json").exists()
        })?;
    }
    Ok(())
}

fn ask_and_leave(machine: &Machine, line: &str) -> Result<Child> {
    let argv = machine.ctl_argv(line);
    let (program, arguments) = argv.split_first().context("a command")?;
    let mut command = std::process::Command::new(program);
    let command = command.args(arguments).stdin(Stdio::null());
    Ok(command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?)
}

/// Waits until exactly these hold the store, and have all of it.
fn wait_holders(machine: &Machine, names: &[&str]) -> Outcome {
    let mut list = Value::Null;
    wait_until(
        format!("{names:?} to hold the store"),
        ELECTION_WAIT,
        || {
            list = machine.json("machine storage ls").unwrap_or_default();
            let rows = list["payload"]["rows"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let holders: Vec<&Value> = rows.iter().filter(|row| row["role"] == "storage").collect();
            let named: Vec<&str> = holders
                .iter()
                .filter_map(|row| row["name"].as_str())
                .collect();
            let leaders = holders.iter().filter(|row| row["leader"] == true).count();
            named == names && leaders == 1 && holders.iter().all(|row| row["current"] == true)
        },
    )
    .with_context(|| list.to_string())
}

/// Somebody who writes one number after the other, as soon as the last one was answered.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

impl Writer {
    fn start(machine: &Machine, target: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let argv = |n: u64| machine.ctl_argv(&format!("--json machine label {target} n={n}"));
        let lines: Vec<Vec<String>> = (1..2_000).map(argv).collect();
        let thread = std::thread::spawn(move || {
            let (mut acknowledged, mut tried) = (0, 0);
            for (line, n) in lines.iter().zip(1..) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                tried = n;
                if run(line, b"", PATIENCE).is_ok_and(|it| it.succeeded()) {
                    acknowledged = n;
                }
            }
            (acknowledged, tried)
        });
        Self { stop, thread }
    }

    /// The last number that was acknowledged, and the last that was tried.
    fn stop(self) -> Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the writer"))
    }
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show(what: &str, took: Duration) {
    println!("{what}: {took:.1?}");
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show_count(what: &str, count: u64) {
    println!("{what}: {count}");
}
