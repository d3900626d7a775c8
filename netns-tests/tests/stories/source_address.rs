//! Answers leave from the address that was asked, and from another once that one is gone.
//!
//! ```text
//!   a   veth1 10.0.0.1  fd00:10::1  ========== veth2 10.0.0.2  fd00:10::2   b
//!             10.0.0.10 fd00:10::10
//!       veth3 10.0.1.1  ====================== veth4 10.0.1.2              (second story)
//!                                              lo    10.9.9.9
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use ployz_netns_tests::pair::{Family, PORT};
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Host, Pair, Plan, Stage, story, traffic};

mod removed {
    use super::*;

    story!(reply_from_the_address_that_was_asked);
}

mod rerouted {
    use super::*;

    story!(another_cable_takes_over);
}

fn reply_from_the_address_that_was_asked(stage: &Stage) -> Result<()> {
    for outer in Family::BOTH {
        let Pair { a, b } = Pair::new(stage, Plan::over(stage, outer))?;
        let (second, prefix) = match outer {
            Family::V4 => ("10.0.0.10", 24),
            Family::V6 => ("fd00:10::10", 64),
        };
        a.netns.address(&a.cable(), &format!("{second}/{prefix}"))?;
        let second: IpAddr = second.parse()?;
        ask(&a, &b, second, prefix, outer).with_context(|| format!("outer {outer:?}"))?;
    }
    Ok(())
}

fn ask(a: &Host, b: &Host, second: IpAddr, prefix: u8, outer: Family) -> Result<()> {
    let second_endpoint = SocketAddr::new(second, PORT);
    b.wg().set(&format!(
        "peer {} endpoint {second_endpoint}",
        a.keys.public
    ))?;
    traffic::pings(&b.netns, a.inner(Family::V4), 10)?;
    b.wait_endpoint(a, second_endpoint)
        .context("the answer came from elsewhere")?;
    // Now a speaks first: it stays with the address that its peer knows.
    traffic::pings(&a.netns, b.inner(Family::V4), 10)?;
    b.wait_endpoint(a, second_endpoint)
        .context("unasked, it spoke from elsewhere")?;

    a.netns
        .remove_address(&a.cable(), &format!("{second}/{prefix}"))?;
    traffic::ping(&a.netns, b.inner(Family::V4)).context("the source address is gone")?;
    b.wait_endpoint(a, a.endpoint(outer))?;
    traffic::pings(&b.netns, a.inner(Family::V6), 10)
}

fn another_cable_takes_over(stage: &Stage) -> Result<()> {
    let Pair { a, b } = Pair::new(stage, Plan::of(stage))?;
    a.netns.cable("veth3", &b.netns, "veth4")?;
    a.netns.address("veth3", "10.0.1.1/24")?;
    b.netns.address("veth4", "10.0.1.2/24")?;
    b.netns.address("lo", "10.9.9.9/32")?;
    a.netns
        .run("ip route add 10.9.9.9/32 via 10.0.0.2 metric 100")?;
    a.netns
        .run("ip route add 10.9.9.9/32 via 10.0.1.2 metric 200")?;

    a.wg()
        .set(&format!("peer {} endpoint 10.9.9.9:{PORT}", b.keys.public))?;
    traffic::pings(&a.netns, b.inner(Family::V4), 10)?;
    b.wait_endpoint(&a, a.endpoint(Family::V4))?;

    a.netns.run("ip link set dev veth1 down")?;
    a.netns
        .run("ping -n -q -c 1 -W 1 10.9.9.9")
        .context("the other cable itself")?;
    let other = SocketAddr::new("10.0.1.1".parse()?, PORT);
    wait_until(
        "the other cable to take over",
        Duration::from_secs(5),
        || traffic::ping(&a.netns, b.inner(Family::V4)).is_ok(),
    )?;
    b.wait_endpoint(&a, other)?;
    traffic::pings(&b.netns, a.inner(Family::V4), 10)
}
