//! Clocks that are an hour off, on the machine that holds the store and on one that does not.
//!
//! ```text
//!   m1 founds, an hour behind  ──┐
//!   m2 joins, an hour ahead    ──┼── switch
//!   m3 joins                   ──┘
//! ```

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text, wrong_clock};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::Value;

const HOUR_SECS: i64 = 3_600;
/// What measuring may be wrong by, and then some for a busy host.
const ERROR_SECS: i64 = 5;
/// A clock that was put right makes handshakes that look old; the others begin them then, once they miss an answer.
const CORRECTED_WAIT: Duration = Duration::from_secs(60);

#[test]
fn an_hour_off() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = (1..=3)
            .map(|number| segment.machine(stage, number))
            .collect::<Result<Vec<_>>>()?;
        machines[0].prefix = wrong_clock(-HOUR_SECS);
        machines[1].prefix = wrong_clock(HOUR_SECS);
        for machine in &mut machines {
            machine.start(stage)?;
        }
        let founded = machines[0].json("mesh init acme")?;
        let first = text(&founded, "/payload/invite/token");
        let joined = machines[1].import(&first)?;
        ensure!(text(&joined, "/payload/status") == "joined", "{joined}");
        machines[2].join(&machines[0])?;
        invites_expire_when_they_should(&machines)?;
        everybody_reaches_everybody(&machines, PATIENCE)?;
        it_shows(&machines)?;
        put_right(stage, &mut machines)
    })
}

/// In a second of the store's time, whatever time it is elsewhere.
fn invites_expire_when_they_should(machines: &[Machine]) -> Result<()> {
    let lasting = machines[0].json("machine invite create --ttl-secs 60")?;
    ensure!(machines[0].code("machine invite create --ttl-secs 1")? == "OK");
    let statuses = || -> Result<Vec<(String, String)>> {
        let list = machines[0].json("machine invite list --all")?;
        let invites = list["payload"]["invites"].as_array().context("invites")?;
        Ok(invites
            .iter()
            .map(|it| (text(it, "/invite_id"), text(it, "/status")))
            .collect())
    };
    wait_until("the short invite to expire", PATIENCE, || {
        statuses().is_ok_and(|all| all.iter().any(|(_, status)| status == "expired"))
    })?;
    let id = text(&lasting, "/payload/invite_id");
    ensure!(statuses()?.contains(&(id, "active".to_owned())));
    Ok(())
}

fn everybody_reaches_everybody(machines: &[Machine], patience: Duration) -> Result<()> {
    for machine in machines {
        wait_until(format!("{} to reach all", machine.name), patience, || {
            let all = ["10.101.0.1", "10.101.1.1", "10.101.2.1"];
            all.iter().all(|target| machine.reaches(target))
        })?;
    }
    Ok(())
}

/// Each says it of itself, and everybody of everybody; and how old a report is does not depend on it.
fn it_shows(machines: &[Machine]) -> Result<()> {
    let expected = [-HOUR_SECS, HOUR_SECS, 0];
    let near = |value: Option<&Value>, expected: i64| {
        value
            .and_then(Value::as_i64)
            .is_some_and(|it| (it - expected).abs() <= ERROR_SECS)
    };
    for machine in machines {
        wait_until(
            format!("{} to see all clocks", machine.name),
            PATIENCE,
            || {
                let list = machine.json("machine ls").unwrap_or_default();
                (0..3).all(|at| {
                    let row = &list["payload"]["rows"][at];
                    near(row.get("clock_offset_secs"), expected[at])
                        && near(row.get("observed_age_secs"), ERROR_SECS)
                })
            },
        )?;
    }
    for (machine, expected) in machines.iter().zip(expected) {
        let status = machine.json("status")?;
        let offset = status.pointer("/payload/control/clock_offset_secs");
        ensure!(near(offset, expected), "{status}");
        let shown = machine.ctl("status")?.stdout;
        ensure!(
            shown.contains("the store's clock: set it") == (expected != 0),
            "{shown}"
        );
    }
    Ok(())
}

/// Back by an hour, which is what the handshakes of WireGuard hate: traffic comes back all the same.
fn put_right(stage: &Stage, machines: &mut [Machine]) -> Result<()> {
    machines[1].kill();
    machines[1].prefix.clear();
    machines[1].start(stage)?;
    let begin = now();
    everybody_reaches_everybody(machines, CORRECTED_WAIT)?;
    show("traffic of a clock that was put right", begin.elapsed());
    machines[1].wait_ready(PATIENCE)
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show(what: &str, took: Duration) {
    println!("{what} took {took:.1?}");
}
