//! A million datagrams of rubbish do no harm, and every one of them is accounted for.
//!
//! ```text
//!   a ========== b      TCP from b to a through the tunnel
//!   +--- rubbish ->     to b's port, from another port of a's address
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::attack::{Attack, Pace};
use ployz_netns_tests::counters::{netstat, snmp6};
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::traffic::Iperf;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Host, Pair, Plan, Stage, story, traffic};

const HANDFULS: u64 = 20;

const HANDFUL: Pace = Pace {
    datagrams: 200,
    a_second: 1_000_000,
};

const STORM: Pace = Pace {
    datagrams: 1_000_000,
    a_second: 120_000,
};

/// The storm lasts more than eight seconds.
const SECONDS: u32 = 10;

/// What a stream has to keep while generator and daemons fight for two processors, in bits a second.
const AT_LEAST: f64 = 20e6;

story!(a_million_datagrams);

fn a_million_datagrams(stage: &Stage) -> Result<()> {
    for outer in Family::BOTH {
        let Pair { mut a, mut b } = Pair::new(stage, Plan::over(stage, outer))?;
        traffic::ping(&a.netns, b.inner(Family::V4))?;
        every_one_is_counted(&a, &b, outer)?;
        if outer == Family::V4 {
            traffic_goes_on(&a, &b, outer)?;
        }
        ensure!(
            a.daemon.is_alive() && b.daemon.is_alive(),
            "a daemon died of it"
        );
        ensure!(
            b.endpoint_of(&a)? == Some(a.endpoint(outer)),
            "rubbish made a peer roam"
        );
        traffic::pings(&a.netns, b.inner(Family::V6), 100)?;
        let memory = b.daemon.memory_kib()?;
        ensure!(memory < 512 * 1024, "{memory} KiB of memory afterwards");
    }
    Ok(())
}

/// Few at a time, and the next few once those have been counted: no receive buffer overflows.
fn every_one_is_counted(a: &Host, b: &Host, outer: Family) -> Result<()> {
    let (before, lost_before) = (drops(b)?, lost(b, outer)?);
    let mut sent = 0;
    for seed in 0..HANDFULS {
        sent += Attack::with_rubbish(&a.netns, b.endpoint(outer), seed, HANDFUL)?.finish()?;
        if b.daemon.contender().is_ployzd() {
            wait_until("everything to be counted", Duration::from_secs(3), || {
                drops(b).is_ok_and(|dropped| dropped == before + sent)
            })
            .with_context(|| format!("{sent} sent: {:?}", b.daemon.uapi().status()))?;
        }
    }
    let lost = lost(b, outer)? - lost_before;
    ensure!(lost == 0, "a receive buffer overflowed {lost} times");
    Ok(())
}

/// What the kernel threw away before the daemon could read it.
fn lost(host: &Host, outer: Family) -> Result<u64> {
    match outer {
        Family::V4 => netstat(&host.netns, "Udp", "RcvbufErrors"),
        Family::V6 => snmp6(&host.netns, "Udp6RcvbufErrors"),
    }
}

fn traffic_goes_on(a: &Host, b: &Host, outer: Family) -> Result<()> {
    let report = Iperf::tcp(b, a, Family::V4, SECONDS).run_during(|| {
        let sent = Attack::with_rubbish(&a.netns, b.endpoint(outer), 1, STORM)?.finish()?;
        ensure!(sent >= STORM.datagrams, "only {sent} were sent");
        Ok(())
    })?;
    ensure!(
        report.bits_per_second > AT_LEAST,
        "of the stream was left {report}"
    );
    Ok(())
}

/// All that was dropped, for whatever reason.
fn drops(host: &Host) -> Result<u64> {
    if !host.daemon.contender().is_ployzd() {
        return Ok(0);
    }
    let status = host.daemon.uapi().status()?;
    let reasons = status.iter().filter(|(key, _)| key.starts_with("drop_"));
    reasons.map(|(_, count)| Ok(count.parse::<u64>()?)).sum()
}
