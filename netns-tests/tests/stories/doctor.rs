//! Everything that keeps two machines from talking, made for real, and what `doctor` says of it.
//!
//! ```text
//!   m1 founds ──┐
//!   m2 joins  ──┼── switch
//!   m3 joins  ──┘
//! ```

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text, wrong_clock};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::netns::host;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::{Value, json};

/// Every way to a machine that does not answer is tried, and then both are watched for a while.
const EXAMINATION: Duration = Duration::from_secs(60);

#[test]
fn it_names_what_is_broken() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = segment.running_machines(stage, 3)?;
        ensure!(machines[0].code("doctor m2")? == "NETWORK_NOT_RUNNING");
        says(&machines[0], "doctor", "network", "in no network")?;
        ensure!(machines[0].code("mesh init acme")? == "OK");
        for joiner in &machines[1..] {
            joiner.join(&machines[0])?;
        }
        all_is_well(&machines)?;
        one_way(&machines)?;
        both_ways(&machines)?;
        no_route(&machines)?;
        small_mtu(&segment, &machines)?;
        no_handshake(stage, &mut machines)?;
        wrong_key(stage, &mut machines)?;
        clock_that_is_wrong(stage, &mut machines)?;
        down(&mut machines)?;
        stale_view(stage, &mut machines)
    })
}

fn all_is_well(machines: &[Machine]) -> Result<()> {
    for machine in machines {
        wait_until(format!("{} to be well", machine.name), PATIENCE, || {
            machine.ctl("doctor").is_ok_and(|it| it.succeeded())
        })?;
    }
    for pair in ["m2", "m3"] {
        let doctor = machines[0].ctl(&format!("doctor {pair}"))?;
        ensure!(doctor.succeeded(), "{doctor}");
    }
    let own = machines[0].json("doctor m1")?;
    ensure!(own["payload"]["machine"].is_null(), "{own}");
    Ok(())
}

/// What m1 sends to m2's WireGuard is lost; the other way everything gets through.
fn one_way(machines: &[Machine]) -> Result<()> {
    let firewall = drop_udp(&machines[1], "ip saddr 10.0.0.1 udp dport 51820")?;
    let cause = "one way: nothing from m1 arrives at m2";
    says(&machines[0], "doctor m2", "udp", cause)?;
    says(&machines[1], "doctor m1", "udp", cause)?;
    heal(&machines[1], &firewall)?;
    talk_again(&machines[0], "m2")
}

fn both_ways(machines: &[Machine]) -> Result<()> {
    let firewall = drop_udp(&machines[1], "udp dport 51820 ip saddr 10.0.0.1")?;
    let other = drop_udp(&machines[0], "udp dport 51820 ip saddr 10.0.0.2")?;
    says(&machines[0], "doctor m2", "udp", "blocked both ways")?;
    // Not even management gets through: m3 is asked to pass it on.
    let all = drop_udp(&machines[1], "ip saddr 10.0.0.1 meta l4proto udp")?;
    says(&machines[0], "doctor m2", "udp", "blocked both ways")?;
    for (machine, firewall) in [(1, &firewall), (0, &other), (1, &all)] {
        heal(&machines[machine], firewall)?;
    }
    talk_again(&machines[0], "m2")
}

fn no_route(machines: &[Machine]) -> Result<()> {
    machines[0]
        .netns
        .run("ip route add unreachable 10.0.0.2/32")?;
    says(
        &machines[0],
        "doctor m2",
        "route",
        "no route from this machine to 10.0.0.2",
    )?;
    machines[0]
        .netns
        .run("ip route del unreachable 10.0.0.2/32")?;
    talk_again(&machines[0], "m2")
}

/// Nobody says so: a switch drops what is too long.
fn small_mtu(segment: &Segment, machines: &[Machine]) -> Result<()> {
    segment.port_mtu(3, 1300)?;
    says(
        &machines[1],
        "doctor m3",
        "mtu",
        "carries packets of 1300 bytes",
    )?;
    segment.port_mtu(3, 1500)?;
    Ok(())
}

/// A preshared key that only one of them has.
fn no_handshake(stage: &Stage, machines: &mut [Machine]) -> Result<()> {
    machines[1].stop()?;
    let key = stage.place("preshared");
    fs::write(&key, "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=\n")?;
    let peer = wireguard_key(&machines[0], "m2")?;
    machines[0].netns.run(&format!(
        "wg set {} peer {peer} preshared-key {}",
        machines[0].interface,
        key.display()
    ))?;
    // A session that there is would go on without it.
    machines[1].start(stage)?;
    let cause = "no handshake between m1 and m2, although datagrams arrive both ways";
    says(&machines[0], "doctor m2", "handshake", cause)?;
    fs::write(&key, "\n")?;
    machines[0].netns.run(&format!(
        "wg set {} peer {peer} preshared-key /dev/null",
        machines[0].interface
    ))?;
    talk_again(&machines[0], "m2")
}

/// As when it was restored from another machine's backup.
fn wrong_key(stage: &Stage, machines: &mut [Machine]) -> Result<()> {
    machines[1].stop()?;
    let file = machines[1].data_dir.join("identity.json");
    let before = fs::read(&file)?;
    let mut identity: Value = serde_json::from_slice(&before)?;
    identity["wireguard_key"] = json!("40".repeat(32));
    fs::write(&file, serde_json::to_vec(&identity)?)?;
    machines[1].start(stage)?;
    says(
        &machines[0],
        "doctor m2",
        "key",
        "wrong key: the WireGuard key of m2 differs",
    )?;
    says(&machines[1], "doctor", "record", "wrong key")?;
    machines[1].stop()?;
    fs::write(&file, before)?;
    machines[1].start(stage)?;
    talk_again(&machines[0], "m2")
}

fn clock_that_is_wrong(stage: &Stage, machines: &mut [Machine]) -> Result<()> {
    machines[2].stop()?;
    machines[2].prefix = wrong_clock(3_600);
    machines[2].start(stage)?;
    says(
        &machines[0],
        "doctor m3",
        "clock",
        "s ahead of this machine",
    )?;
    wait_until("m3 to notice it by itself", PATIENCE, || {
        says(&machines[2], "doctor", "clock", "ahead of the store's").is_ok()
    })?;
    machines[2].stop()?;
    machines[2].prefix.clear();
    machines[2].start(stage)?;
    talk_again(&machines[0], "m3")
}

fn down(machines: &mut [Machine]) -> Result<()> {
    machines[2].kill();
    let checks = examine(&machines[0], "doctor m3")?;
    names(&checks, "asked", "m3 does not answer")?;
    names(&checks, "udp", "the machine is down, or UDP is blocked")
}

/// The founder and its store are gone, and m2 starts from a view that is an hour old.
fn stale_view(stage: &Stage, machines: &mut [Machine]) -> Result<()> {
    let store = machines[0].store_pid()?;
    machines[0].kill();
    host(&format!("kill -KILL {store}"))?;
    machines[1].stop()?;
    let file = machines[1].data_dir.join("view.json");
    let mut view: Value = serde_json::from_slice(&fs::read(&file)?)?;
    let confirmed_at = view["confirmed_at"].as_u64().context("confirmed_at")?;
    view["confirmed_at"] = json!(confirmed_at - 3_600);
    fs::write(&file, serde_json::to_vec(&view)?)?;
    machines[1].start(stage)?;
    says(&machines[1], "doctor", "view", "stale")?;
    says(&machines[1], "doctor", "store", "its holders are m1")?;
    says(&machines[1], "doctor m1", "view", "stale")
}

/// That `doctor` has at least a warning: that this check says this, and how to mend it.
fn says(machine: &Machine, command: &str, check: &str, cause: &str) -> Result<()> {
    let checks = examine(machine, command)?;
    names(&checks, check, cause).with_context(|| format!("{} `{command}`", machine.name))
}

/// The checks of a `doctor`, which ends with 1 if one of them has failed.
fn examine(machine: &Machine, command: &str) -> Result<Vec<Value>> {
    let finished = machine.ctl(&format!(
        "--json --timeout {}s {command}",
        EXAMINATION.as_secs()
    ))?;
    let document: Value = serde_json::from_str(&finished.stdout)?;
    let checks = document["payload"]["checks"].as_array().cloned();
    let checks = checks.with_context(|| document.to_string())?;
    let has_failed = checks.iter().any(|it| it["verdict"] == "fail");
    ensure!(
        finished.status.code() == Some(has_failed.into()),
        "{finished}"
    );
    Ok(checks)
}

fn names(checks: &[Value], check: &str, cause: &str) -> Result<()> {
    let found = checks.iter().find(|it| {
        text(it, "/check") == check && text(it, "/cause").contains(cause) && it["verdict"] != "ok"
    });
    let found = found.with_context(|| format!("no {check} with '{cause}' in {checks:#?}"))?;
    ensure!(!text(found, "/mend").is_empty(), "{found}");
    Ok(())
}

fn talk_again(machine: &Machine, other: &str) -> Result<()> {
    wait_until(
        format!("{} and {other} to talk again", machine.name),
        EXAMINATION,
        || {
            let doctor = machine.json(&format!("doctor {other}")).unwrap_or_default();
            doctor["payload"]["healthy"] == true
        },
    )
}

fn wireguard_key(machine: &Machine, other: &str) -> Result<String> {
    let inspect = machine.json(&format!("machine inspect {other}"))?;
    Ok(text(&inspect, "/payload/desired/wireguard_key"))
}

/// A table of its own for what matches, so that it can be taken away; its name.
fn drop_udp(machine: &Machine, what: &str) -> Result<String> {
    let table = format!("t{}", what.bytes().map(u32::from).sum::<u32>());
    for command in [
        format!("add table inet {table}"),
        format!("add chain inet {table} in {{ type filter hook input priority 0 ; }}"),
        format!("add rule inet {table} in {what} drop"),
    ] {
        machine.netns.run(&format!("nft {command}"))?;
    }
    Ok(table)
}

fn heal(machine: &Machine, table: &str) -> Result<()> {
    machine
        .netns
        .run(&format!("nft delete table inet {table}"))
        .map(drop)
}
