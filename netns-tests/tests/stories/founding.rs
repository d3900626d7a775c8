//! One machine founds a network, is killed, and is back.
//!
//! ```text
//!   m1 ── switch
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::wait::now;
use ployz_netns_tests::{Backend, Outcome, Stage, tell};

/// What the issue grants a daemon to take up its traffic again.
const RESUME_WAIT: Duration = Duration::from_secs(2);

#[test]
fn found_kill_and_resume() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machine = segment.machine(stage, 1)?;
        machine.start(stage)?;
        refuse_what_cannot_be(&machine)?;
        found(&machine)?;
        private_files(&machine)?;
        resume_after_kill(stage, &mut machine)?;
        resume_after_stop(stage, &mut machine)
    })
}

fn refuse_what_cannot_be(machine: &Machine) -> Result<()> {
    for (arguments, code) in [
        (
            "mesh init acme --cluster-cidr 10.0.0.0/16",
            "INVALID_ARGUMENT",
        ),
        (
            "mesh init acme --cluster-cidr 10.101.0.1/16",
            "INVALID_ARGUMENT",
        ),
        ("mesh init acme --subnet-prefix-len 8", "INVALID_ARGUMENT"),
        ("machine ls", "NETWORK_NOT_RUNNING"),
        ("machine invite create", "NETWORK_NOT_RUNNING"),
        ("mesh ready", "NETWORK_NOT_RUNNING"),
    ] {
        ensure!(machine.code(arguments)? == code, "{arguments}");
    }
    is_in_no_network(machine)
}

fn is_in_no_network(machine: &Machine) -> Result<()> {
    let status = machine.json("status")?;
    ensure!(status["payload"]["network"].is_null(), "{status}");
    let addresses = machine
        .netns
        .run(&format!("ip -4 address show dev {}", machine.interface))?;
    ensure!(addresses.stdout.trim().is_empty(), "{}", addresses.stdout);
    ensure!(!machine.data_dir.join("network.json").exists());
    ensure!(!machine.data_dir.join("nats").exists());
    Ok(())
}

fn found(machine: &Machine) -> Result<()> {
    let document = machine.json("mesh init acme")?;
    ensure!(document["ok"] == true, "{document}");
    ensure!(
        text(&document, "/payload/overlay_ip") == "10.101.0.1",
        "{document}"
    );
    ensure!(
        text(&document, "/payload/invite/token").starts_with("ployz2."),
        "{document}"
    );
    let again = machine.json("mesh init acme")?;
    ensure!(again["ok"] == true, "{again}");
    ensure!(text(&again, "/message").contains("already"), "{again}");
    ensure!(machine.code("mesh init other")? == "NETWORK_ALREADY_RUNNING");
    let machines = machine.json("machine ls")?;
    let row = &machines["payload"]["rows"][0];
    ensure!(
        row["authority"] == "storage" && row["lifecycle"] == "active",
        "{machines}"
    );
    ensure!(machine.ctl("mesh ready")?.succeeded());
    ensure!(machine.code("machine inspect m1")? == "OK");
    ensure!(machine.code("machine inspect nobody")? == "MACHINE_NOT_FOUND");
    Ok(())
}

/// All of it, nats-server's own files included.
fn private_files(machine: &Machine) -> Result<()> {
    let (mut places, mut seen) = (vec![machine.data_dir.clone()], Vec::new());
    while let Some(place) = places.pop() {
        // What is written beside a file and then put in its place may be gone by now.
        let Ok(metadata) = fs::metadata(&place) else {
            continue;
        };
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        let mode = metadata.permissions().mode() & 0o777;
        ensure!(mode == expected, "{} is {mode:o}", place.display());
        if metadata.is_dir() {
            for entry in fs::read_dir(&place)? {
                places.push(entry?.path());
            }
        }
        let own = place.strip_prefix(&machine.data_dir)?;
        seen.push(own.display().to_string());
    }
    for name in [
        "identity.json",
        "ca.json",
        "local.json",
        "nats/key.pem",
        "nats/log",
    ] {
        ensure!(seen.iter().any(|it| it == name), "{name} among {seen:?}");
    }
    ensure!(
        seen.iter()
            .any(|it| it.starts_with("nats/store/jetstream/STORE")),
        "{seen:?}"
    );
    Ok(())
}

fn resume_after_kill(stage: &Stage, machine: &mut Machine) -> Result<()> {
    let before = machine.json("status")?;
    machine.kill();
    let code = machine.ctl("--timeout 1s machine ls")?.status.code();
    ensure!(
        code == Some(3),
        "a daemon that is not there has exit status {code:?}"
    );
    let killed = now();
    machine.start(stage)?;
    machine.wait_ready(RESUME_WAIT)?;
    ensure!(
        killed.elapsed() < RESUME_WAIT,
        "back after {:?}",
        killed.elapsed()
    );
    is_the_same(&before, machine)
}

fn resume_after_stop(stage: &Stage, machine: &mut Machine) -> Result<()> {
    let before = machine.json("status")?;
    machine.stop()?;
    ensure!(!machine.data_dir.join("local.json").exists());
    ensure!(!machine.netns.has_link(&machine.interface));
    machine.start(stage)?;
    machine.wait_ready(RESUME_WAIT)?;
    is_the_same(&before, machine)
}

/// The identity is the same, and `nats-server` is the same process.
fn is_the_same(before: &serde_json::Value, machine: &Machine) -> Result<()> {
    let after = machine.json("status")?;
    for pointer in [
        "/payload/id",
        "/payload/network_id",
        "/payload/overlay_ip6",
        "/payload/storage",
    ] {
        let (before, after) = (before.pointer(pointer), after.pointer(pointer));
        ensure!(
            before == after && before.is_some(),
            "{pointer}: {before:?}, {after:?}"
        );
    }
    Ok(())
}
