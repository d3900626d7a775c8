//! Machines are brought to the next version while somebody's transfer goes through all of them, and the daemon that
//! drives it is killed on the way. A version that does not start, one that was tampered with, and an earlier one change
//! nothing. A machine that cannot get to where releases are from is given them by the one that drives the update.
//!
//! ```text
//!   m1 (holds the store, and releases) ── switch ── m2 (has no releases) ══ TCP ══ m3
//!                                            └───── the operator's place: releases, over HTTP, for m3
//! ```
//!
//! `PLOYZ_NEXT_PROGRAMS` is where `scripts/next-version` has put the programs of the next version.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::command::{Finished, PATIENCE, mortal, run, words};
use ployz_netns_tests::release::Published;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Lab, Outcome, Stage, tell};
use serde_json::{Value, json};

const SOURCE: &str = "/srv/ployz";
const RELEASES: &str = "/srv/releases";
/// Three machines, each with a download, a start and a look at its health.
const UPDATE_PATIENCE: Duration = Duration::from_secs(180);
/// As long as the update takes, at least; it is ended when that is over.
const TRANSFER_SECS: u32 = 300;
/// What a version that does not start is called.
const BROKEN: &str = "0.3.0";

#[test]
fn machines_are_updated_under_traffic_and_go_back_by_themselves() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let published = Published::new(stage)?;
        let next = version_of(&next_programs()?)?;
        published.add(&next_programs()?)?;
        let lab = Lab::up(3)?;
        let _releases = serve(&lab, &published.base)?;
        found(&lab, &published)?;
        let transfer = Transfer::start(&lab, 3, 2)?;
        update_all_with_the_coordinator_killed(&lab, &next)?;
        certificates_are_renewed(&lab)?;
        transfer.is_going_on()?;

        published.add(&broken_programs(stage)?)?;
        bring_releases(&lab, &published)?;
        goes_back_by_itself(&lab, &next)?;
        transfer.is_going_on()?;
        refuses_what_is_not_genuine_or_older(&lab, &published, &next)?;
        transfer.is_going_on()
    })
}

/// Every machine has the version, the one that drives the update last, whose daemon is killed while another is being
/// exchanged.
fn update_all_with_the_coordinator_killed(lab: &Lab, next: &str) -> Outcome {
    let update = thread::scope(|scope| {
        let line = format!("ployzctl --json machine update --version {next} --canary 1");
        let updating = scope.spawn(move || root_within(lab, 1, &line, UPDATE_PATIENCE));
        wait_until("the first machine to be exchanged", UPDATE_PATIENCE, || {
            operation(lab).is_ok_and(|row| row["stages"].to_string().contains("switch"))
        })?;
        root(lab, 1, "systemctl kill --signal KILL ployzd.service")?.success()?;
        updating.join().unwrap_or_else(|panic| resume_unwind(panic))
    })?;
    let update = document(&update)?;
    ensure!(update["ok"] == true, "{update}");
    let updated = update["payload"]["updated"].as_array().context("updated")?;
    let names: Vec<&Value> = updated.iter().map(|it| &it["name"]).collect();
    ensure!(names == ["m2", "m3", "m1"], "{update}");
    for machine in updated {
        ensure!(machine["to"] == next, "{update}");
        let way = if machine["name"] == "m2" {
            "coordinator"
        } else {
            "base"
        };
        ensure!(machine["release_from"] == way, "{update}");
        show(machine);
    }
    for machine in [1, 2, 3] {
        has_unit_of(lab, machine, next)?;
    }
    for field in ["failed", "unchanged", "untouched"] {
        ensure!(update["payload"][field] == json!([]), "{update}");
    }
    let row = operation(lab)?;
    ensure!(row["state"] == "done" && row["update"]["updated"] == update["payload"]["updated"]);
    let again = document(&root(
        lab,
        1,
        &format!("ployzctl --json machine update --version {next}"),
    )?)?;
    ensure!(
        again["payload"]["unchanged"]
            .as_array()
            .is_some_and(|it| it.len() == 3),
        "{again}"
    );
    Ok(())
}

/// Whatever version they were founded and let in by: every machine has certificates of this one by now.
fn certificates_are_renewed(lab: &Lab) -> Outcome {
    for machine in 1..=3 {
        wait_until(
            format!("certificates of machine {machine}"),
            PATIENCE,
            || {
                let renewed = "grep -q machine_pem /var/lib/ployz/certificates.json";
                root(lab, machine, renewed).is_ok_and(|it| it.success().is_ok())
            },
        )?;
    }
    Ok(())
}

/// A version that ends as soon as it is started.
fn goes_back_by_itself(lab: &Lab, next: &str) -> Outcome {
    let line = format!("ployzctl --json machine update m2 m3 --version {BROKEN}");
    let finished = root_within(lab, 1, &line, UPDATE_PATIENCE)?;
    ensure!(finished.status.code() == Some(1), "{finished}");
    let update = document(&finished)?;
    let (failed, untouched) = (
        &update["payload"]["failed"],
        &update["payload"]["untouched"],
    );
    ensure!(
        failed[0]["name"] == "m2" && failed[0]["stage"] == "health",
        "{update}"
    );
    ensure!(failed[0]["rolled_back"] == true, "{update}");
    ensure!(
        untouched.as_array().is_some_and(|it| it.len() == 1),
        "{update}"
    );
    let status = document(&root(lab, 2, "ployzctl --json status")?)?;
    ensure!(status["payload"]["version"] == next, "{status}");
    root(lab, 2, "ployzctl mesh ready")?.success()?;
    ensure!(operation(lab)?["state"] == "failed");
    has_unit_of(lab, 2, next)
}

/// What systemd runs the daemon by, and has read.
fn has_unit_of(lab: &Lab, machine: u8, version: &str) -> Outcome {
    let line = "systemctl show --property Description,NeedDaemonReload ployzd.service";
    let unit = root(lab, machine, line)?.success()?.stdout;
    ensure!(
        unit.contains(&format!("({version})")) && unit.contains("NeedDaemonReload=no"),
        "m{machine}: {unit}"
    );
    Ok(())
}

fn refuses_what_is_not_genuine_or_older(lab: &Lab, published: &Published, next: &str) -> Outcome {
    let older = version_of(&published.programs)?;
    let refused = document(&root(
        lab,
        1,
        &format!("ployzctl --json machine update --version {older}"),
    )?)?;
    ensure!(refused["code"] == "VERSION_MISMATCH", "{refused}");
    let place = published.base.join(BROKEN);
    for entry in fs::read_dir(&place)?.flatten() {
        if entry.file_name().to_string_lossy().ends_with(".tar.gz") {
            let mut bytes = fs::read(entry.path())?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(entry.path(), bytes)?;
        }
    }
    bring_releases(lab, published)?;
    root(lab, 2, &format!("rm -r /opt/ployz/versions/{BROKEN}"))?.success()?;
    for machine in [2, 3] {
        let line = format!("ployzctl --json machine update m{machine} --version {BROKEN}");
        let update = document(&root(lab, 1, &line)?)?;
        let failed = &update["payload"]["failed"][0];
        ensure!(
            failed["stage"] == "download" && failed["message"].to_string().contains("SHA-256"),
            "{update}"
        );
        let installed = root(lab, machine, "ls /opt/ployz /opt/ployz/versions")?;
        let installed = installed.success()?.stdout;
        ensure!(
            !installed.contains(BROKEN) && installed.contains(next),
            "{installed}"
        );
        ensure!(!installed.contains("pass"), "{installed}");
    }
    Ok(())
}

fn found(lab: &Lab, published: &Published) -> Outcome {
    let key = fs::read_to_string(&published.key)?;
    let key = key.lines().last().context("a key")?;
    for machine in [1, 2, 3] {
        let place = lab.root(machine).join(SOURCE.trim_start_matches('/'));
        fs::create_dir_all(&place)?;
        for entry in fs::read_dir(&published.programs)?.flatten() {
            fs::copy(entry.path(), place.join(entry.file_name()))?;
        }
        let install = format!(
            "{SOURCE}/ployzctl daemon install --runtime host --name m{machine} --release-base {} --release-key {key}",
            base(machine)
        );
        root(lab, machine, &install)?.success()?;
    }
    bring_releases(lab, published)?;
    root(lab, 1, "ployzctl mesh init acme")?.success()?;
    for machine in [2, 3] {
        let token = document(&root(lab, 1, "ployzctl --json machine invite create")?)?;
        let token = token["payload"]["token"].as_str().context("a token")?;
        let import = format!("ployzctl machine invite import --token {token}");
        root(lab, machine, &import)?.success()?;
    }
    for machine in [2, 3] {
        wait_until("the machine to be ready", PATIENCE, || {
            root(lab, machine, "ployzctl mesh ready").is_ok_and(|it| it.succeeded())
        })?;
    }
    Ok(())
}

/// A TCP transfer from one machine to another, which ends with this.
struct Transfer {
    counter: String,
    client: Running,
    _server: Running,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Transfer {
    fn start(lab: &Lab, from: u8, to: u8) -> Result<Self> {
        let status = document(&root(lab, to, "ployzctl --json status")?)?;
        let address = status["payload"]["overlay_ip"]
            .as_str()
            .context("an address")?;
        let place = |machine| format!("ip netns exec {}", lab.namespace(machine));
        let server = spawn(&format!("{} iperf3 -s -1", place(to)))?;
        let listens = format!("{} ss -Hltn sport = :5201", place(to));
        wait_until("iperf3 to listen", PATIENCE, || {
            run(&words(&listens), b"", PATIENCE).is_ok_and(|it| !it.stdout.is_empty())
        })?;
        // Enough to be seen, and little enough to leave the processors to what is tested.
        let client = format!(
            "{} iperf3 -c {address} -b 50M -t {TRANSFER_SECS}",
            place(from)
        );
        let transfer = Self {
            counter: format!(
                "{} cat /sys/class/net/ployz0/statistics/rx_bytes",
                place(to)
            ),
            client: spawn(&client)?,
            _server: server,
        };
        Ok(transfer)
    }

    /// The connection has not broken, which would end iperf3, and more and more arrives.
    fn is_going_on(&self) -> Outcome {
        const ENOUGH: u64 = 2_000_000;
        let arrived = || -> Result<u64> {
            let counted = run(&words(&self.counter), b"", PATIENCE)?.success()?;
            Ok(counted.stdout.trim().parse()?)
        };
        let before = arrived()?;
        wait_until("the transfer to go on", PATIENCE, || {
            arrived().is_ok_and(|now| now > before + ENOUGH)
        })?;
        let status = fs::read_to_string(format!("/proc/{}/stat", self.client.0.id()))?;
        let state = status.rsplit(") ").next().unwrap_or_default();
        ensure!(!state.starts_with('Z'), "the transfer has ended");
        Ok(())
    }
}

fn spawn(line: &str) -> Result<Running> {
    let child = mortal(&words(line))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Running(child))
}

/// Where a machine looks for releases: m1 finds them there, m2 does not.
fn base(machine: u8) -> &'static str {
    match machine {
        3 => "http://10.42.0.254:8000",
        _ => RELEASES,
    }
}

/// Has what is published lie on m1.
fn bring_releases(lab: &Lab, published: &Published) -> Outcome {
    let place = lab.root(1).join(RELEASES.trim_start_matches('/'));
    fs::create_dir_all(&place)?;
    let copy = format!("cp -r {}/. {}", published.base.display(), place.display());
    run(&words(&copy), b"", PATIENCE)?.success()?;
    Ok(())
}

/// A web server in the operator's place.
fn serve(lab: &Lab, directory: &Path) -> Result<Running> {
    let directory = directory.display().to_string();
    let server = [
        "run",
        "python3",
        "-m",
        "http.server",
        "8000",
        "--directory",
        &directory,
    ];
    let child = mortal(&lab.argv(&server))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let latest = ["bash", "-c", "exec 3<>/dev/tcp/10.42.0.254/8000"];
    wait_until("the web server to listen", PATIENCE, || {
        lab.run(&latest, b"", PATIENCE)
            .is_ok_and(|it| it.succeeded())
    })?;
    Ok(Running(child))
}

fn next_programs() -> Result<PathBuf> {
    let place = env::var_os("PLOYZ_NEXT_PROGRAMS");
    Ok(place
        .context("PLOYZ_NEXT_PROGRAMS is not set: scripts/next-version DIR")?
        .into())
}

fn version_of(programs: &Path) -> Result<String> {
    let ployzctl = programs.join("ployzctl").display().to_string();
    let said = run(&[ployzctl, "--version".to_owned()], b"", PATIENCE)?
        .success()?
        .stdout;
    Ok(said
        .split_whitespace()
        .last()
        .context("a version")?
        .to_owned())
}

/// Programs that say what version they are and what it is run by, and nothing else.
fn broken_programs(stage: &Stage) -> Result<PathBuf> {
    let place = stage.place("broken");
    fs::create_dir(&place)?;
    // `ployzctl daemon units --output DIR`
    const UNITS: &str = "mkdir \"$4\" && sed 's/^Description=.*/Description=broken/' \
                         /etc/systemd/system/ployzd.service >\"$4/ployzd.service\"";
    for program in ["ployzd", "ployzctl", "nats-server"] {
        let path = place.join(program);
        let text = format!(
            "#!/bin/sh\ncase $*:{program} in\n--version:*) echo {program} {BROKEN} ;;\n\
             'daemon units --output '*:ployzctl) {UNITS} ;;\n*) exit 1 ;;\nesac\n"
        );
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(place)
}

/// The last long work, as whoever asks m1 is told.
fn operation(lab: &Lab) -> Result<Value> {
    let listed = document(&root(lab, 1, "ployzctl --json operation list")?)?;
    let rows = listed["payload"]["operations"]
        .as_array()
        .context("operations")?;
    let mut updates = rows.iter().filter(|it| it["operation"] == "machine-update");
    Ok(updates.next_back().context("an update")?.clone())
}

fn root(lab: &Lab, machine: u8, line: &str) -> Result<Finished> {
    lab.ssh(machine, &format!("sudo {line}"))
}

fn root_within(lab: &Lab, machine: u8, line: &str, patience: Duration) -> Result<Finished> {
    let argv = lab.argv(&["ssh", &format!("m{machine}"), &format!("sudo {line}")]);
    run(&argv, b"", patience)
}

fn document(finished: &Finished) -> Result<Value> {
    serde_json::from_str(&finished.stdout).with_context(|| finished.to_string())
}

#[expect(clippy::print_stderr, reason = "a figure for whoever watches")]
fn show(machine: &Value) {
    eprintln!(
        "{} was without traffic for {} ms",
        machine["name"], machine["gap_ms"]
    );
}
