//! Workloads move between machines, with what they keep; what fails leaves them where they were.
//!
//! ```text
//!   m1 coordinates ── m2 ── m3
//! ```

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_api::client::ask;
use ployz_api::{
    Code, Credential, MEMBER_CREDENTIAL_FILE, Name, Request, VolumePart, VolumeRequest,
};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::workloads::{machines, rows, run_workload, wait_state};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::Value;

/// More than two pieces, and no whole number of them.
const LARGE_LEN: usize = (1 << 20) + 12_345;
/// Some seconds, at the fastest.
const COPIED_LEN: u64 = 4 << 30;
/// A machine that says nothing for a minute is not waited for; looking at that takes a moment.
const GIVEN_UP_WAIT: Duration = Duration::from_secs(90);

#[test]
fn workloads_move_with_what_they_keep_or_stay() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = machines(stage, &segment, 3)?;
        volumes_move_along(stage, &machines)?;
        nobody_else_gets_volumes(stage, &machines)?;
        what_does_not_run_there_stays(stage, &machines)?;
        the_new_machine_dies_amid_the_copy(stage, &mut machines)?;
        a_coordinator_dies_over_it(stage, &mut machines)
    })
}

fn volumes_move_along(stage: &Stage, machines: &[Machine]) -> Result<()> {
    let founder = &machines[0];
    let place = stage.place("kept");
    let command = format!("date >> {}/beat; exec sleep 1000", place.display());
    let flags = format!("--machine m2 --volume data:{}", place.display());
    run_workload(founder, "db", &command, &flags)?;
    let (from, to) = (volume(&machines[1], "db"), volume(&machines[2], "db"));
    fs::create_dir(from.join("deep"))?;
    let large: Vec<u8> = (0..LARGE_LEN).map(|at| (at % 251) as u8).collect();
    fs::write(from.join("deep/large"), &large)?;
    fs::set_permissions(from.join("deep/large"), fs::Permissions::from_mode(0o640))?;
    symlink("deep/large", from.join("link"))?;
    fs::hard_link(from.join("deep/large"), from.join("same"))?;
    for (path, owner) in [("deep/large", 1234), ("deep", 4321)] {
        chown(from.join(path), Some(owner), Some(owner + 1))?;
    }
    let before = ["deep/large", "deep", "beat", ""].map(|path| attributes(&from.join(path)));

    let preview = founder.json("migrate preview default/db --to m3")?;
    ensure!(preview["payload"]["volumes"][0] == "data", "{preview}");
    ensure!(rows(founder, "")?.len() == 1, "nothing has happened");
    let moved = founder.json("migrate apply default/db --to m3")?;
    ensure!(text(&moved, "/code") == "OK", "{moved}");
    let operation = text(&moved, "/payload/operation_id");
    let operation = founder.json(&format!("operation get {operation}"))?;
    let stages = operation["payload"]["stages"]
        .as_array()
        .context("stages")?;
    ensure!(stages.len() == 5, "{operation}");

    is_only_on(founder, "db", "m3")?;
    ensure!(fs::read(to.join("deep/large"))? == large);
    for (path, before) in ["deep/large", "deep", "beat", ""].iter().zip(before) {
        let (before, after) = (before?, attributes(&to.join(path))?);
        // The new one, whose user is the same, has written into the volume itself.
        let is_written = path.is_empty() || *path == "beat";
        let is_same = before == after || is_written && before[..3] == after[..3];
        ensure!(is_same, "{path}: {after:?} instead of {before:?}");
    }
    let inode = |path: &str| fs::metadata(to.join(path)).map(|it| it.ino());
    ensure!(inode("deep/large")? == inode("same")?, "it is a copy");
    ensure!(fs::read_link(to.join("link"))? == PathBuf::from("deep/large"));
    ensure!(
        fs::read_to_string(to.join("beat"))?.lines().count() == 2,
        "both have run"
    );
    wait_until("the old one to be gone", PATIENCE, || {
        instances(&machines[1]) == 0
    })?;
    let again = founder.code("migrate apply db --to m3")?;
    ensure!(again == "CONFLICT", "it is there: {again}");
    ensure!(founder.code("workload rm db")? == "OK");
    Ok(())
}

/// A machine of the network, whose record claims nothing, and the founder's root.
fn nobody_else_gets_volumes(stage: &Stage, machines: &[Machine]) -> Result<()> {
    let place = stage.place("secret");
    let flags = format!("--machine m2 --volume data:{}", place.display());
    run_workload(&machines[0], "safe", "exec sleep 1000", &flags)?;
    for (machine, code) in [(&machines[2], Code::Busy), (&machines[0], Code::Forbidden)] {
        let text = fs::read(machine.data_dir.join(MEMBER_CREDENTIAL_FILE))?;
        let mut credential: Credential = serde_json::from_slice(&text)?;
        credential.endpoints = vec!["10.0.0.2:51821".parse()?];
        let request = Request::Volume(VolumeRequest {
            workload: "safe".parse()?,
            volume: Name::nearest("data"),
            part: VolumePart::Entries { after: None },
        });
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let asking = ask(&credential, &request, PATIENCE);
        let answer = machine
            .netns
            .enter(|| Ok(runtime.enable_all().build()?.block_on(asking)?))?;
        ensure!(answer.code == code, "{}: {answer:?}", machine.name);
    }
    ensure!(machines[0].code("workload rm safe")? == "OK");
    Ok(())
}

fn what_does_not_run_there_stays(stage: &Stage, machines: &[Machine]) -> Result<()> {
    let founder = &machines[0];
    let place = stage.place("stays");
    let command = format!(
        "test $PLOYZ_ADDRESS = 10.101.1.1 || exit 1; date >> {}/beat; exec sleep 1000",
        place.display()
    );
    let flags = format!("--machine m2 --volume data:{}", place.display());
    run_workload(founder, "fixed", &command, &flags)?;
    let moved = founder.json("migrate apply fixed --to m3")?;
    ensure!(text(&moved, "/code") == "CONFLICT", "{moved}");
    is_only_on(founder, "fixed", "m2")?;
    wait_state(founder, "default/fixed", "running")?;
    let beats = fs::read_to_string(volume(&machines[1], "fixed").join("beat"))?;
    ensure!(beats.lines().count() == 2, "it was started again: {beats}");
    wait_until("the new side to be undone", PATIENCE, || {
        instances(&machines[2]) == 0
    })?;
    ensure!(founder.code("machine drain m3")? == "OK");
    let refused = founder.code("migrate apply fixed --to m3")?;
    ensure!(refused == "INVALID_TRANSITION", "{refused}");
    ensure!(founder.code("machine activate m3")? == "OK");
    ensure!(founder.code("workload rm fixed")? == "OK");
    Ok(())
}

/// What it has copied by then is of no use, and what is on the old machine is.
fn the_new_machine_dies_amid_the_copy(stage: &Stage, machines: &mut [Machine]) -> Result<()> {
    let place = stage.place("large");
    let command = format!("date >> {}/beat; exec sleep 1000", place.display());
    let flags = format!("--machine m2 --volume data:{}", place.display());
    run_workload(&machines[0], "big", &command, &flags)?;
    let (from, to) = (volume(&machines[1], "big"), volume(&machines[2], "big"));
    // Of many seconds, and no room on the disk.
    fs::File::create(from.join("hole"))?.set_len(COPIED_LEN)?;
    let asking = stage.place("asking");
    let mut asking = machines[0].ctl_going_on("--json migrate apply big --to m3", &asking)?;
    let copied = || fs::metadata(to.join("hole")).map_or(0, |it| it.len());
    wait_until("the copy to be under way", PATIENCE, || copied() > 0)?;
    machines[2].kill();
    let there = copied();
    ensure!(there < COPIED_LEN, "it was copied before: {there}");

    wait_until("the migration to be given up", GIVEN_UP_WAIT, || {
        asking.ended().is_some()
    })?;
    let operations = machines[0].json("operation list")?;
    let rows = operations["payload"]["operations"].as_array();
    let last = rows.and_then(|rows| rows.last()).context("operations")?;
    ensure!(
        last["state"] == "failed" && text(last, "/message").contains("has not reported it"),
        "{last}"
    );
    is_only_on(&machines[0], "big", "m2")?;
    ensure!(
        fs::metadata(from.join("hole"))?.len() == COPIED_LEN
            && fs::read_to_string(from.join("beat"))?.lines().count() == 2,
        "it was started again, with all that it had"
    );
    machines[2].start(stage)?;
    machines[2].wait_ready(PATIENCE)?;
    wait_until("the new side to be undone", PATIENCE, || {
        instances(&machines[2]) == 0
    })?;
    ensure!(machines[0].code("workload rm big")? == "OK");
    fs::remove_file(from.join("hole"))?;
    Ok(())
}

fn a_coordinator_dies_over_it(stage: &Stage, machines: &mut [Machine]) -> Result<()> {
    run_workload(&machines[0], "web", "exec sleep 1000", "--machine m2")?;
    let asking = stage.place("asking");
    let asking = machines[0].ctl_going_on("migrate apply web --to m3", &asking)?;
    wait_until("both machines to hold it", PATIENCE, || {
        rows(&machines[0], "").is_ok_and(|rows| rows.len() == 2)
    })?;
    machines[0].kill();
    drop(asking);
    machines[0].start(stage)?;
    machines[0].wait_ready(PATIENCE)?;
    let operations = machines[0].json("operation list")?;
    ensure!(
        operations.to_string().contains("interrupted"),
        "{operations}"
    );
    is_only_on(&machines[0], "web", "m3")?;
    ensure!(machines[0].code("workload rm web")? == "OK");
    wait_until("nothing to run any more", PATIENCE, || {
        machines.iter().all(|machine| instances(machine) == 0)
    })
}

/// Mode, owner, group and when it was written.
fn attributes(path: &Path) -> Result<[i64; 5]> {
    let it = fs::metadata(path)?;
    let (mode, uid, gid) = (it.mode().into(), it.uid().into(), it.gid().into());
    Ok([mode, uid, gid, it.mtime(), it.mtime_nsec()])
}

fn is_only_on(founder: &Machine, workload: &str, machine: &str) -> Result<()> {
    wait_until(
        format!("{workload} to be on {machine} only"),
        PATIENCE,
        || {
            let is_it = |row: &Value| row["machine"] == machine && row["state"] == "running";
            rows(founder, "").is_ok_and(|rows| rows.len() == 1 && is_it(&rows[0]))
        },
    )
}

fn volume(machine: &Machine, workload: &str) -> PathBuf {
    let volumes = machine.data_dir.join("volumes/default");
    volumes.join(workload).join("data")
}

fn instances(machine: &Machine) -> usize {
    fs::read_dir(machine.data_dir.join("workloads")).map_or(0, Iterator::count)
}
