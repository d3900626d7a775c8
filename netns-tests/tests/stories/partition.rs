//! A machine is cut off for a minute, in which the network changes; then it is back.
//!
//! ```text
//!   m1 founds ───────────────────┐
//!   m2 joins, and is removed   ──┤
//!   m3 joins, and is cut off   ──┼── switch
//!   m4 joins while m3 is away  ──┘
//! ```

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::{now, stays, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};

/// What the issue wants survived, and what it grants after that.
const PARTITION: Duration = Duration::from_secs(60);
const CONVERGE_WAIT: Duration = Duration::from_secs(10);

#[test]
fn cut_off_for_a_minute() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 3)?;
        let [founder, removed, away] = &machines[..] else {
            anyhow::bail!("three machines");
        };
        ensure!(founder.code("mesh init acme")? == "OK");
        removed.join(founder)?;
        away.join(founder)?;
        away.wait_ready(PATIENCE)?;
        wait_until("m3 to reach m2", PATIENCE, || away.reaches("10.101.1.1"))?;
        cut_off(away)?;
        let begin = now();
        let late = join_and_remove(stage, &segment, founder)?;
        let rest = PARTITION.saturating_sub(begin.elapsed());
        stays("nobody is counted out for being away", rest, || {
            names(founder).is_ok_and(|it| it == ["m1", "m3", "m4"])
                && names(away).is_ok_and(|it| it == ["m1", "m2", "m3"])
        })?;
        ensure!(away.code("mesh ready")? == "STORE_UNAVAILABLE");
        heal(away)?;
        converged(founder, away, &late)
    })
}

/// Nothing goes out and nothing comes in.
fn cut_off(machine: &Machine) -> Result<()> {
    for line in [
        "nft add table inet cut",
        "nft add chain inet cut input { type filter hook input priority 0 ; }",
        "nft add chain inet cut output { type filter hook output priority 0 ; }",
        "nft add rule inet cut input iifname eth0 drop",
        "nft add rule inet cut output oifname eth0 drop",
    ] {
        machine.netns.run(line)?;
    }
    Ok(())
}

fn heal(machine: &Machine) -> Result<()> {
    machine.netns.run("nft delete table inet cut").map(drop)
}

fn join_and_remove(stage: &Stage, segment: &Segment, founder: &Machine) -> Result<Machine> {
    let mut late = segment.machine(stage, 4)?;
    late.start(stage)?;
    late.join(founder)?;
    ensure!(founder.code("machine rm m2 --force --yes")? == "OK");
    Ok(late)
}

/// Everybody knows the same, and traffic flows both ways.
fn converged(founder: &Machine, away: &Machine, late: &Machine) -> Result<()> {
    let healed = now();
    let left = || CONVERGE_WAIT.saturating_sub(healed.elapsed());
    away.wait_ready(left())?;
    for machine in [founder, away, late] {
        wait_until(
            format!("{} to know who is in", machine.name),
            left(),
            || names(machine).is_ok_and(|it| it == ["m1", "m3", "m4"]),
        )?;
    }
    for (from, to) in [
        (away, "10.101.0.1"),
        (away, "10.101.3.1"),
        (founder, "10.101.2.1"),
        (late, "10.101.2.1"),
    ] {
        wait_until(format!("{} to reach {to}", from.name), left(), || {
            from.reaches(to)
        })?;
    }
    let peers = away
        .netns
        .run(&format!("wg show {} allowed-ips", away.interface))?;
    ensure!(!peers.stdout.contains("10.101.1.0/24"), "{}", peers.stdout);
    show("converged", healed.elapsed());
    Ok(())
}

fn names(machine: &Machine) -> Result<Vec<String>> {
    let list = machine.json("machine ls")?;
    let rows = list["payload"]["rows"].as_array().context("rows")?;
    Ok(rows.iter().map(|row| text(row, "/name")).collect())
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show(what: &str, took: Duration) {
    println!("{what} after {took:.1?}");
}
