//! Somewhere on the way packets have to be shorter, and nobody says so.
//!
//! ```text
//!   a ---- router ---[ a smaller MTU, and every ICMP about it lost ]--- b      see `routed.rs`
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::counters::LinkBytes;
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::routed::Routed;
use ployz_netns_tests::traffic::Iperf;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Contender, Host, Pair, Plan, Stage, story, traffic};

/// A transfer that stalls goes on within this time of the path's change.
const RECOVERY: Duration = Duration::from_secs(2);
/// More than what was under way when the path changed.
const PROGRESS_BYTES: u64 = 32 << 20;

mod shrinks {
    use super::*;
    story!(a_transfer_goes_on_within_two_seconds);
}

mod small {
    use super::*;
    story!(a_path_that_was_always_small);
}

mod jumbo {
    use super::*;
    story!(nine_thousand_bytes_where_they_fit);
}

mod stock {
    use super::*;
    story!(a_stock_peer_is_left_alone);
}

fn a_transfer_goes_on_within_two_seconds(stage: &Stage) -> Result<()> {
    for outer in Family::BOTH {
        let routed = meet(stage, outer, 1420)?;
        let Routed { a, b, router } = &routed;
        let transfer = Iperf::tcp(a, b, Family::V4, 5);
        transfer.run_during(|| {
            knows_path(a, 1420 + overhead(outer))?;
            router.mtu("vethb", 1400)?;
            let received = || LinkBytes::of(&b.netns, b.link()).map_or(0, |bytes| bytes.received);
            let before = received();
            wait_until(
                format!("the transfer to go on, outer {outer:?}"),
                RECOVERY,
                || received() > before + PROGRESS_BYTES,
            )?;
            knows_path(a, 1400)
        })?;
    }
    Ok(())
}

fn a_path_that_was_always_small(stage: &Stage) -> Result<()> {
    for outer in Family::BOTH {
        // Nobody on the way cuts IPv6, so what IPv6 asks of every path takes 1360 bytes outside.
        let mtu = match outer {
            Family::V4 => 1300,
            Family::V6 => 1360,
        };
        let Routed { a, b, router } = meet(stage, outer, 1420)?;
        router.mtu("vethb", mtu)?;
        b.netns.mtu("veth2", mtu)?;
        for inner in Family::BOTH {
            Iperf::tcp(&a, &b, inner, 1)
                .run()
                .with_context(|| format!("outer {outer:?}, inner {inner:?}"))?;
        }
        knows_path(&a, mtu)?;

        // Whoever forbids fragments hears how long a packet may be.
        let largest = mtu - overhead(outer);
        refused(&a, b.inner(Family::V4), &format!("mtu = {largest}"))?;
        refused(&a, b.inner(Family::V6), "mtu=1280")?;
        // Whoever allows them gets through whole, and an IPv6 packet of the least MTU always does.
        for (inner, flags) in [(Family::V4, "-M dont -s 1392"), (Family::V6, "-s 1232")] {
            let report = traffic::ping_flood(&a.netns, b.inner(inner), 5, flags)?;
            ensure!(
                report.received == 5,
                "{report:?} with {flags}, outer {outer:?}"
            );
        }
    }
    Ok(())
}

fn nine_thousand_bytes_where_they_fit(stage: &Stage) -> Result<()> {
    let Routed { a, b, router } = meet(stage, Family::V4, 8940)?;
    for (netns, link) in [
        (&a.netns, "veth1"),
        (&b.netns, "veth2"),
        (&router, "vetha"),
        (&router, "vethb"),
    ] {
        netns.mtu(link, 9000)?;
    }
    let transfer = Iperf::tcp(&a, &b, Family::V4, 3);
    transfer.run_during(|| {
        knows_path(&a, 9000)?;
        router.mtu("vethb", 1500)?;
        knows_path(&a, 1500)
    })?;
    Ok(())
}

/// It cannot answer; nothing is assumed of the path, and hardly anything is sent that it does not want.
fn a_stock_peer_is_left_alone(stage: &Stage) -> Result<()> {
    let plan = Plan {
        b: Contender::WireguardGo,
        ..Plan::of(stage)
    };
    let pair = Pair::new(stage, plan)?;
    Iperf::tcp(&pair.a, &pair.b, Family::V4, 2).run()?;
    let path = pair.a.path();
    ensure!(path.is_none(), "measured: {path:?}");
    Ok(())
}

/// Two hosts that know each other over `outer`, behind a router that tells nobody what does not fit.
fn meet(stage: &Stage, outer: Family, mtu: u32) -> Result<Routed> {
    let routed = Routed::new(stage)?;
    let Routed { a, b, router } = &routed;
    router.run("nft add table inet hole")?;
    router.run("nft add chain inet hole output { type filter hook output priority 0 ; }")?;
    router.run("nft add rule inet hole output icmp type destination-unreachable drop")?;
    router.run("nft add rule inet hole output icmpv6 type packet-too-big drop")?;
    for host in [a, b] {
        host.netns.mtu(host.link(), mtu)?;
    }
    let at_a = match outer {
        Family::V4 => "192.168.1.1:51820",
        Family::V6 => "[fd00:11::1]:51820",
    };
    a.know(b, &format!("endpoint {}", b.endpoint(outer)))?;
    b.know(a, &format!("endpoint {at_a}"))?;
    traffic::ping(&a.netns, b.inner(Family::V4))?;
    Ok(routed)
}

/// What the tunnel adds to a packet.
fn overhead(outer: Family) -> u32 {
    let ip = match outer {
        Family::V4 => 20,
        Family::V6 => 40,
    };
    ip + 8 + 32
}

fn knows_path(host: &Host, mtu: u32) -> Result<()> {
    let mut last = None;
    wait_until(format!("a path of {mtu}"), Duration::from_secs(5), || {
        last = host.path();
        last.as_ref().is_some_and(|path| path.mtu == mtu)
    })
    .with_context(|| format!("it is {last:?}"))
}

/// A ping of 1420 bytes that must not be cut is refused in words.
fn refused(from: &Host, target: std::net::IpAddr, words: &str) -> Result<()> {
    let size = if target.is_ipv4() { 1392 } else { 1372 };
    // The kernel may remember what it was told before and refuse by itself.
    from.netns.run("ip -4 route flush cache")?;
    from.netns.run("ip -6 route flush cache")?;
    let line = format!("ping -n -M do -s {size} -c 1 -W 1 {target}");
    let ping = from.netns.attempt(&line)?;
    ensure!(
        ping.stdout.contains(words),
        "not refused with '{words}': {ping}"
    );
    Ok(())
}
