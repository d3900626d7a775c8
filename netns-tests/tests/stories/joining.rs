//! Three machines, from nothing to a full mesh; and everything that lets nobody in.
//!
//! ```text
//!   m1 founds ──┐
//!   m2 joins  ──┼── switch
//!   m3 joins  ──┘
//! ```

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};

/// What the issue grants a daemon to take up its traffic again.
const RESUME_WAIT: Duration = Duration::from_secs(2);

#[test]
fn three_machines_from_nothing() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = segment.running_machines(stage, 3)?;
        let begin = now();
        ensure!(machines[0].code("mesh init acme")? == "OK");
        refuse_what_is_no_invite(&machines)?;
        let token = race(&machines[0], [&machines[1], &machines[2]])?;
        full_mesh(&machines)?;
        show("a full mesh of 3", begin.elapsed());
        used_up(&machines, &token)?;
        restart_one(stage, &mut machines)
    })
}

fn refuse_what_is_no_invite(machines: &[Machine]) -> Result<()> {
    let (founder, joiner) = (&machines[0], &machines[1]);
    let token = founder.invite("")?;
    let cut = &token[..token.len() - 1];
    for (token, code) in [
        ("rubbish", "INVITE_INVALID"),
        (cut, "INVITE_INVALID"),
        (&expired(founder)?, "INVITE_EXPIRED"),
        (&revoked(founder)?, "INVITE_REVOKED"),
    ] {
        let document = joiner.import(token)?;
        ensure!(
            text(&document, "/code") == code,
            "expected {code}: {document}"
        );
    }
    ensure!(
        !joiner.data_dir.join("network.json").exists(),
        "half joined"
    );
    Ok(())
}

fn expired(founder: &Machine) -> Result<String> {
    let token = founder.invite("--ttl-secs 1")?;
    wait_until("the invite to expire", PATIENCE, || {
        statuses(founder).is_ok_and(|statuses| statuses.contains(&"expired".to_owned()))
    })?;
    Ok(token)
}

fn revoked(founder: &Machine) -> Result<String> {
    let document = founder.json("machine invite create")?;
    let id = text(&document, "/payload/invite_id");
    for _ in 0..2 {
        ensure!(
            founder.code(&format!("machine invite revoke {id}"))? == "OK",
            "or again"
        );
    }
    Ok(text(&document, "/payload/token"))
}

fn statuses(founder: &Machine) -> Result<Vec<String>> {
    let document = founder.json("machine invite list --all")?;
    let invites = document["payload"]["invites"].as_array().cloned();
    Ok(invites
        .unwrap_or_default()
        .iter()
        .map(|it| text(it, "/status"))
        .collect())
}

/// Two machines show the same token at the same moment: one gets in, and the other is left as it was.
fn race(founder: &Machine, joiners: [&Machine; 2]) -> Result<String> {
    let token = founder.invite("")?;
    let answers = thread::scope(|scope| {
        joiners
            .map(|joiner| scope.spawn(|| joiner.import(&token)))
            .map(|racing| racing.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let mut codes = Vec::new();
    for (joiner, answer) in joiners.into_iter().zip(answers) {
        let code = text(&answer?, "/code");
        let is_in = joiner.data_dir.join("network.json").exists();
        ensure!(is_in == (code == "OK"), "{} got {code}", joiner.name);
        if !is_in {
            joiner.join(founder)?;
        }
        codes.push(code);
    }
    codes.sort();
    ensure!(codes == ["INVITE_CONSUMED", "OK"], "{codes:?}");
    Ok(token)
}

/// Everybody lists everybody, and reaches everybody in both families.
fn full_mesh(machines: &[Machine]) -> Result<()> {
    for machine in machines {
        wait_until(
            format!("{} to reach all others", machine.name),
            PATIENCE,
            || {
                let rows = reachable(machine);
                rows.len() == machines.len() && rows.iter().all(|(ip, _)| machine.reaches(ip))
            },
        )?;
        wait_until(format!("{} to say so", machine.name), PATIENCE, || {
            reachable(machine).iter().all(|(_, reachable)| *reachable)
        })?;
        let list = machine.json("machine ls")?;
        for row in list["payload"]["rows"].as_array().into_iter().flatten() {
            ensure!(machine.reaches(&text(row, "/overlay_ip6")), "{row}");
        }
    }
    Ok(())
}

fn reachable(machine: &Machine) -> Vec<(String, bool)> {
    let list = machine.json("machine ls").unwrap_or_default();
    let rows = list["payload"]["rows"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    rows.iter()
        .map(|row| (text(row, "/overlay_ip"), row["reachable"] == true))
        .collect()
}

/// A machine that is in is told so, whoever used the token.
fn used_up(machines: &[Machine], token: &str) -> Result<()> {
    for member in &machines[1..] {
        let again = member.import(token)?;
        ensure!(
            text(&again, "/payload/status") == "had joined before",
            "{again}"
        );
    }
    ensure!(machines[1].code("mesh init other")? == "NETWORK_ALREADY_RUNNING");
    ensure!(machines[1].code("machine invite create")? == "UNSUPPORTED");
    let consumed = statuses(&machines[0])?
        .iter()
        .filter(|it| *it == "consumed")
        .count();
    ensure!(consumed == 2, "{consumed} invites are consumed");
    Ok(())
}

/// One daemon is killed: the others' traffic goes on, and its own comes back.
fn restart_one(stage: &Stage, machines: &mut [Machine]) -> Result<()> {
    let before = machines[1].json("status")?;
    let third = text(&machines[2].json("status")?, "/payload/overlay_ip");
    machines[1].kill();
    ensure!(machines[0].reaches(&third), "m1 and m3 do not need m2");
    let killed = now();
    machines[1].start(stage)?;
    wait_until("m2 to reach m1 and m3 again", RESUME_WAIT, || {
        machines[1].reaches("10.101.0.1") && machines[1].reaches(&third)
    })?;
    show("traffic of a daemon that was killed", killed.elapsed());
    let after = machines[1].json("status")?;
    for pointer in ["/payload/id", "/payload/overlay_ip", "/payload/overlay_ip6"] {
        ensure!(
            before.pointer(pointer) == after.pointer(pointer),
            "{pointer}"
        );
    }
    full_mesh(machines)
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show(what: &str, took: Duration) {
    println!("{what} took {took:.1?}");
}
