//! Everybody's WireGuard talks to ours.
//!
//! ```text
//!   a ========== b      ployzd at a; wireguard-go, boringtun or gotatun at b
//! ```
//!
//! Each implementation is initiator once and responder once, over both families, with a preshared key and
//! without. Then both ends roam, send keepalives and change their keys. (boringtun cannot change a peer
//! that it has: it is told to forget it and to add it anew.)

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::counters::Keepalives;
use ployz_netns_tests::pair::{Family, PORT};
use ployz_netns_tests::traffic::{Iperf, Protocol};
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{
    Backend, Contender, Host, Keys, Outcome, Pair, Plan, Stage, tell_with, traffic,
};

#[test]
fn wireguard_go() -> Outcome {
    with(Contender::WireguardGo)
}

#[test]
fn boringtun() -> Outcome {
    with(Contender::Boringtun)
}

#[test]
fn gotatun() -> Outcome {
    with(Contender::Gotatun)
}

fn with(other: Contender) -> Outcome {
    tell_with(Contender::under_test(Backend::IoUring)?, |stage| {
        for outer in Family::BOTH {
            for preshared_key in [true, false] {
                let plan = Plan {
                    outer,
                    preshared_key,
                    b: other,
                    ..Plan::of(stage)
                };
                roles(stage, plan).with_context(|| format!("{plan:?}"))?;
            }
            let plan = Plan {
                outer,
                preshared_key: false,
                b: other,
                ..Plan::of(stage)
            };
            life(stage, plan).with_context(|| format!("{plan:?}"))?;
        }
        Ok(())
    })
}

/// Whoever has something to send first is the initiator.
fn roles(stage: &Stage, plan: Plan) -> Result<()> {
    for (ours_first, role) in [(true, "we initiate"), (false, "they initiate")] {
        let Pair { a, b } = Pair::new(stage, plan)?;
        let (first, second) = if ours_first { (&a, &b) } else { (&b, &a) };
        for family in Family::BOTH {
            most_pings(first, second, family).context(role)?;
            most_pings(second, first, family).context(role)?;
        }
        load(first, second, Family::V4).context(role)?;
        load(second, first, Family::V6).context(role)?;
    }
    Ok(())
}

/// gotatun loses one of a few hundred now and then, whoever is at the other end.
fn most_pings(from: &Host, to: &Host, family: Family) -> Result<()> {
    let report = traffic::ping_flood(&from.netns, to.inner(family), 100, "")?;
    ensure!(report.received >= 95, "{report:?} to {}", to.inner(family));
    Ok(())
}

fn load(from: &Host, to: &Host, family: Family) -> Result<()> {
    let (client, server, target) = (&from.netns, &to.netns, to.inner(family));
    Iperf {
        client,
        server,
        target,
        protocol: Protocol::Tcp,
        streams: 1,
        seconds: 1,
    }
    .run()?;
    Ok(())
}

/// What happens to a tunnel that is up for longer.
fn life(stage: &Stage, plan: Plan) -> Result<()> {
    let Pair { mut a, mut b } = Pair::new(stage, plan)?;
    traffic::ping(&a.netns, b.inner(Family::V4))?;

    let endpoint = roam(&a, &b, plan.outer, 91).context("we roam")?;
    b.wait_endpoint(&a, endpoint)?;
    let endpoint = roam(&b, &a, plan.outer, 92).context("they roam")?;
    a.wait_endpoint(&b, endpoint)?;

    a.wg()
        .set(&format!("peer {} persistent-keepalive 1", b.keys.public))?;
    hears_keepalives(&b).context("our keepalives")?;
    a.wg()
        .set(&format!("peer {} persistent-keepalive 0", b.keys.public))?;

    change_key(stage, &mut a, &b).context("our key changes")?;
    traffic::ping(&a.netns, b.inner(Family::V4)).context("after our key changed")?;
    // gotatun 0.10.2 may end itself when its key changes under it ("channel closed"), which is its own affair.
    if !matches!(plan.b, Contender::Gotatun) {
        change_key(stage, &mut b, &a).context("their key changes")?;
        ensure!(
            a.endpoint_of(&b)?.is_none(),
            "a peer that is new has no endpoint"
        );
    }
    meet_again(&b, &a, address(plan.outer, 91), "persistent-keepalive 1")?;
    traffic::ping(&b.netns, a.inner(Family::V6)).context("after their key changed")?;
    hears_keepalives(&a).context("their keepalives")
}

/// A new address, and traffic both ways.
fn roam(host: &Host, other: &Host, outer: Family, number: u8) -> Result<SocketAddr> {
    let (address, length) = (address(outer, number), prefix_length(outer));
    let old = format!("{}/{length}", host.outer(outer));
    // In this order: the kernel takes an address's secondaries away with it.
    host.netns.remove_address(&host.cable(), &old)?;
    host.netns
        .address(&host.cable(), &format!("{address}/{length}"))?;
    traffic::ping(&host.netns, other.inner(Family::V4)).context("from the new address")?;
    traffic::ping(&other.netns, host.inner(Family::V6)).context("to the new address")?;
    Ok(SocketAddr::new(address, PORT))
}

fn address(outer: Family, number: u8) -> IpAddr {
    match outer {
        Family::V4 => IpAddr::from([10, 0, 0, number]),
        Family::V6 => IpAddr::from([0xfd00, 0x10, 0, 0, 0, 0, 0, u16::from(number)]),
    }
}

fn prefix_length(outer: Family) -> u8 {
    match outer {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// `host` gets a new key, and `other` knows it under that one only.
fn change_key(stage: &Stage, host: &mut Host, other: &Host) -> Result<()> {
    let old = host.keys.clone();
    host.keys = Keys::generate(stage)?;
    host.wg()
        .set(&format!("private-key {}", host.keys.path()))?;
    other.wg().set(&format!("peer {} remove", old.public))?;
    other.know(host, "")
}

/// Tells `host` about `other` from scratch.
fn meet_again(host: &Host, other: &Host, address: IpAddr, more: &str) -> Result<()> {
    host.wg()
        .set(&format!("peer {} remove", other.keys.public))?;
    host.know(
        other,
        &format!("endpoint {} {more}", SocketAddr::new(address, PORT)),
    )
}

/// Two keepalives come in with nobody sending anything.
fn hears_keepalives(host: &Host) -> Result<()> {
    let keepalives = Keepalives::of(&host.netns)?;
    wait_until("two keepalives", Duration::from_secs(4), || {
        keepalives.count().is_ok_and(|count| count >= 2)
    })
}
