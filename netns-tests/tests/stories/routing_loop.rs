//! A tunnel whose own datagrams are routed into itself does not melt the machine.
//!
//! ```text
//!   a ========== b      a believes that b's outer address is the one inside the tunnel
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::counters::processor_time;
use ployz_netns_tests::pair::{Family, PORT};
use ployz_netns_tests::wait::pause;
use ployz_netns_tests::{Host, Pair, Plan, Stage, story, traffic};

/// The kernel selftest's bound for ten flood pings.
const BYTES_AT_MOST: u64 = 70_000;

const SPAN: Duration = Duration::from_secs(1);

story!(endpoint_inside_its_own_allowed_ips);

fn endpoint_inside_its_own_allowed_ips(stage: &Stage) -> Result<()> {
    for family in Family::BOTH {
        let Pair { a, b } = Pair::new(stage, Plan::of(stage))?;
        traffic::ping(&a.netns, b.inner(Family::V4))?;
        swallow_itself(&a, &b, family).with_context(|| format!("endpoint in {family:?}"))?;

        // An authenticated packet from the outside shows the way out.
        traffic::ping_flood(&b.netns, a.inner(Family::V4), 1, "")?;
        a.wait_endpoint(&b, b.endpoint(Family::V4))?;
        traffic::pings(&a.netns, b.inner(Family::V4), 10)?;
    }
    Ok(())
}

fn swallow_itself(a: &Host, b: &Host, family: Family) -> Result<()> {
    let inside = std::net::SocketAddr::new(b.inner(family), PORT);
    let sent_before = a.wg().peer(&b.keys.public)?.sent;
    a.wg()
        .set(&format!("peer {} endpoint {inside}", b.keys.public))?;
    let report = traffic::ping_flood(&a.netns, b.inner(family), 10, "")?;
    ensure!(report.received == 0, "a ping went through a loop");

    let busy_before = processor_time(a.daemon.pid())?;
    pause(SPAN);
    let busy = processor_time(a.daemon.pid())? - busy_before;
    let sent = a.wg().peer(&b.keys.public)?.sent - sent_before;
    ensure!(sent < BYTES_AT_MOST, "ten pings became {sent} bytes");
    ensure!(
        busy < SPAN / 10,
        "busy for {busy:?} of {SPAN:?} with nobody sending"
    );
    Ok(())
}
