//! A million datagrams of rubbish do no harm, and every one of them is accounted for.
//!
//! ```text
//!   a ========== b      TCP from b to a through the tunnel
//!   +--- rubbish ->     to b's port, from another port of a's address
//! ```

use anyhow::{Result, ensure};
use ployz_netns_tests::attack::{Attack, Pace};
use ployz_netns_tests::counters::netstat;
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::traffic::{Iperf, Protocol};
use ployz_netns_tests::{Host, Pair, Plan, Stage, story, traffic};

/// Slow enough that no receive buffer overflows: then every single datagram has to be in the counters.
const CALM: Pace = Pace {
    datagrams: 40_000,
    a_second: 20_000,
};

const STORM: Pace = Pace {
    datagrams: 1_000_000,
    a_second: 150_000,
};

/// The storm lasts seven seconds.
const SECONDS: u32 = 8;

/// What a stream has to keep while generator and daemons fight for two processors, in bits a second.
const AT_LEAST: f64 = 50e6;

story!(a_million_datagrams);

fn a_million_datagrams(stage: &Stage) -> Result<()> {
    for outer in Family::BOTH {
        let Pair { mut a, mut b } = Pair::new(
            stage,
            Plan {
                outer,
                ..Plan::of(stage)
            },
        )?;
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

fn every_one_is_counted(a: &Host, b: &Host, outer: Family) -> Result<()> {
    let dropped_before = drops(b)?;
    let sent = Attack::with_rubbish(&a.netns, b.endpoint(outer), CALM)?.finish()?;
    ensure!(sent >= CALM.datagrams, "only {sent} were sent");
    // What the daemon has read is counted when it answers: its socket is empty by then.
    traffic::pings(&a.netns, b.inner(Family::V4), 10)?;
    if !b.daemon.contender().is_ployzd() {
        return Ok(());
    }
    if outer == Family::V4 {
        let overflown = netstat(&b.netns, "Udp", "RcvbufErrors")?;
        ensure!(
            overflown == 0,
            "the calm was a storm: {overflown} overflows"
        );
    }
    let dropped = drops(b)? - dropped_before;
    ensure!(
        dropped == sent,
        "{sent} were sent and {dropped} counted: {:?}",
        b.daemon.uapi().status()?
    );
    Ok(())
}

fn traffic_goes_on(a: &Host, b: &Host, outer: Family) -> Result<()> {
    let (client, server, target) = (&b.netns, &a.netns, a.inner(Family::V4));
    let stream = Iperf {
        client,
        server,
        target,
        protocol: Protocol::Tcp,
        streams: 1,
        seconds: SECONDS,
    };
    let report = stream.run_during(|| {
        let sent = Attack::with_rubbish(&a.netns, b.endpoint(outer), STORM)?.finish()?;
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
