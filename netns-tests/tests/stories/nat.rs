//! Behind a NAT that forgets after two seconds, reachable all the same.
//!
//! ```text
//!   a ---- router (masquerades, UDP timeout 2 s) ---- b      see `routed.rs`
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::routed::Routed;
use ployz_netns_tests::wait::{pause, wait_until};
use ployz_netns_tests::{Netns, Stage, story, traffic};

/// Longer than the NAT remembers.
const OBLIVION: Duration = Duration::from_secs(3);

story!(kept_open_by_keepalives);

fn kept_open_by_keepalives(stage: &Stage) -> Result<()> {
    let Routed { a, b, router } = Routed::new(stage)?;
    masquerade(&router)?;
    let (to_a, to_b) = (a.inner(Family::V4), b.inner(Family::V4));
    b.know(&a, "")?;
    a.know(
        &b,
        &format!("endpoint {} persistent-keepalive 1", b.endpoint(Family::V4)),
    )?;

    traffic::ping(&a.netns, to_b)?;
    let seen = b.endpoint_of(&a)?.context("b has not learnt where a is")?;
    ensure!(
        seen.ip().to_string() == "10.0.0.254",
        "seen through the NAT at {seen}"
    );
    traffic::ping(&b.netns, to_a)?;

    pause(OBLIVION);
    traffic::ping(&b.netns, to_a).context("keepalives did not keep the mapping")?;
    ensure!(
        b.endpoint_of(&a)? == Some(seen),
        "the mapping was lost on the way"
    );

    // Without keepalives the mapping does expire, or the above has shown nothing.
    a.wg()
        .set(&format!("peer {} persistent-keepalive 0", b.keys.public))?;
    wait_until("the NAT to forget", OBLIVION * 2, || {
        router
            .run("conntrack -L -p udp")
            .is_ok_and(|listed| listed.stdout.is_empty())
    })?;
    traffic::ping_in_vain(&b.netns, to_a)?;
    traffic::ping(&a.netns, to_b).context("from the inside it opens again")?;
    traffic::ping(&b.netns, to_a).context("and works both ways")
}

fn masquerade(router: &Netns) -> Result<()> {
    router.run("nft add table ip nat")?;
    router.run("nft add chain ip nat out { type nat hook postrouting priority srcnat ; }")?;
    router.run("nft add rule ip nat out oifname vethb masquerade random")?;
    for timeout in ["udp_timeout", "udp_timeout_stream"] {
        router.sysctl(&format!("net.netfilter.nf_conntrack_{timeout}"), "2")?;
    }
    // What comes from outside unasked must not be answered by the router as if it were its own.
    router.run("nft add table ip guard")?;
    router.run("nft add chain ip guard input { type filter hook input priority 0 ; }")?;
    router
        .run("nft add rule ip guard input iifname vethb meta l4proto udp drop")
        .map(drop)
}
