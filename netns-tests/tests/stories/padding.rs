//! Padding never makes a datagram larger than the route allows.
//!
//! ```text
//!   a ===[ drops what is longer than 1359 ]=== b
//!     the tunnel's MTU is 1300, its route's 1299
//! ```
//!
//! A ping of 1269 is a packet of 1297. The next multiple of 16 is 1312; the link would stand 1300, which
//! with 32 bytes of WireGuard, 8 of UDP and 20 of IPv4 is 1360: one too many for the path.

use std::time::Duration;

use anyhow::{Result, ensure};
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Host, Pair, Plan, Stage, story, traffic};

story!(stays_within_the_route_mtu);

fn stays_within_the_route_mtu(stage: &Stage) -> Result<()> {
    let Pair { a, b } = Pair::new(
        stage,
        Plan {
            mtu: 1300,
            ..Plan::of(stage)
        },
    )?;
    traffic::ping(&a.netns, b.inner(Family::V4))?;

    for (host, other) in [(&a, &b), (&b, &a)] {
        let netns = &host.netns;
        netns.run("nft add table ip path")?;
        netns.run("nft add chain ip path input { type filter hook input priority 0 ; }")?;
        let cable = host.cable();
        netns.run(&format!(
            "nft add rule ip path input iifname {cable} meta length > 1359 counter drop"
        ))?;
        let target = other.inner(Family::V4);
        netns.run(&format!(
            "ip route add {target}/32 dev {} mtu 1299",
            host.link()
        ))?;
    }

    // A userspace daemon hears of a route a moment after it is there.
    wait_until("the route to be known", Duration::from_secs(2), || {
        gets_through(&b, &a, 1269).is_ok()
    })?;
    for size in [1269, 1271, 1257, 1256] {
        gets_through(&b, &a, size)?;
        gets_through(&a, &b, size)?;
    }
    Ok(())
}

fn gets_through(from: &Host, to: &Host, size: u32) -> Result<()> {
    let flags = format!("-s {size}");
    let report = traffic::ping_flood(&from.netns, to.inner(Family::V4), 5, &flags)?;
    ensure!(report.received == 5, "{report:?} of {size} bytes");
    Ok(())
}
