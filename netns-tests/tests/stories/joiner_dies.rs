//! A machine that joins is killed at every step of it, and joins with the same token when it is back.
//!
//! ```text
//!   m1 founds        ──┐
//!   m2 joins, and dies ┴── switch
//! ```

use std::fs::File;
use std::process::Stdio;

use anyhow::{Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::{PATIENCE, mortal};
use ployz_netns_tests::tripwire::Tripwire;
use ployz_netns_tests::wait::wait_for;
use ployz_netns_tests::{Backend, Outcome, Stage, tell};

/// Datagrams to the coordinator from the first to far behind the last, and every step of writing a file: flush, put in
/// its place, flush the directory. With each, how many of them joining has at least.
const STEPS: [(&str, &[u32], usize); 3] = [
    ("sendmsg", &[1, 2, 3, 5, 8, 13, 21, 34, 55, 89], 4),
    (
        "fsync",
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, 24],
        4,
    ),
    ("rename", &[1, 2, 3, 4, 5, 6, 7, 8, 10, 12], 2),
];

#[test]
fn a_joiner_may_die_at_any_step() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let (mut founder, mut joiner) = (segment.machine(stage, 1)?, segment.machine(stage, 2)?);
        founder.start(stage)?;
        ensure!(founder.code("mesh init acme")? == "OK");
        for (syscall, counts, at_least) in STEPS {
            let mut deaths = Vec::new();
            for count in counts {
                if !die_and_join(stage, &founder, &mut joiner, syscall, *count)? {
                    break;
                }
                deaths.push(*count);
            }
            show(syscall, &deaths);
            ensure!(deaths.len() >= at_least, "it died at {deaths:?} only");
            ensure!(deaths.len() < counts.len(), "{syscall}: there is more");
        }
        Ok(())
    })
}

/// A machine of a new identity; whether it died at that call before it had joined. Either way it is in at the end.
fn die_and_join(
    stage: &Stage,
    founder: &Machine,
    joiner: &mut Machine,
    syscall: &str,
    count: u32,
) -> Result<bool> {
    joiner.kill();
    joiner.data_dir = stage.place("data");
    joiner.start(stage)?;
    let token = founder.invite("")?;
    let wire = Tripwire::lay(joiner.pid()?, syscall, count)?;
    let joined = import_or_die(stage, joiner, &token)?;
    drop(wire);
    joiner.kill();
    joiner.start(stage)?;
    let again = joiner.import(&token)?;
    ensure!(
        again["ok"] == true,
        "after {count} calls of {syscall}: {again}"
    );
    joiner.wait_ready(PATIENCE)?;
    is_in_once(founder, &text(&again, "/payload/id"))?;
    ensure!(joiner.reaches("10.101.0.1"));
    let id = text(&again, "/payload/id");
    ensure!(founder.code(&format!("machine rm {id} --force --yes"))? == "OK");
    Ok(!joined)
}

/// Whether the command was done before the daemon died.
fn import_or_die(stage: &Stage, joiner: &mut Machine, token: &str) -> Result<bool> {
    let argv = joiner.ctl_argv("--quiet machine invite import --token-stdin");
    let mut command = mortal(&argv)
        .stdin(File::open(stage.file("token", token)?)?)
        .stderr(Stdio::null())
        .spawn()?;
    let joined = wait_for("m2 to join or to die", PATIENCE, || {
        match command.try_wait() {
            Ok(Some(status)) if status.success() => Some(true),
            _ => joiner.has_ended().then_some(false),
        }
    });
    let _already_gone = command.kill();
    command.wait()?;
    joined
}

/// One record, of whatever happened before.
fn is_in_once(founder: &Machine, id: &str) -> Result<()> {
    let list = founder.json("machine ls")?;
    let rows = list["payload"]["rows"].as_array().cloned();
    let ids: Vec<String> = rows
        .unwrap_or_default()
        .iter()
        .map(|row| text(row, "/id"))
        .collect();
    ensure!(
        ids.len() == 2 && ids.contains(&id.to_owned()),
        "{id} among {ids:?}"
    );
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show(syscall: &str, deaths: &[u32]) {
    println!("died at call {deaths:?} of {syscall}");
}
