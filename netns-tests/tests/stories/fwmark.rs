//! The default route goes through the tunnel, and the tunnel's own datagrams around it.
//!
//! ```text
//!   a ---- router ---- b      see `routed.rs`; policy routing as wg-quick sets it up
//! ```

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::routed::Routed;
use ployz_netns_tests::{Host, Stage, story, traffic};

const MARK: u32 = 51820;

story!(default_route_through_the_tunnel);

fn default_route_through_the_tunnel(stage: &Stage) -> Result<()> {
    for outer in Family::BOTH {
        let Routed {
            a,
            b,
            router: _router,
        } = Routed::new(stage)?;
        route_everything(&a, &b, outer).with_context(|| format!("outer {outer:?}"))?;
    }
    Ok(())
}

fn route_everything(a: &Host, b: &Host, outer: Family) -> Result<()> {
    b.netns.address(b.link(), "192.168.99.7/32")?;
    b.netns.address(b.link(), "abab::1111/128")?;
    let beyond = ["192.168.99.7".parse()?, "abab::1111".parse()?];
    b.know(a, "")?;
    a.wg().set(&format!("fwmark {MARK}"))?;
    ensure!(a.wg().dump()?.fwmark == MARK, "the mark is not shown");
    a.know(b, &format!("endpoint {}", b.endpoint(outer)))?;
    a.wg().set(&format!(
        "peer {} allowed-ips 0.0.0.0/0,::/0",
        b.keys.public
    ))?;
    for family in ["-4", "-6"] {
        let link = a.link();
        a.netns.run(&format!(
            "ip {family} route add default dev {link} table {MARK}"
        ))?;
        a.netns.run(&format!(
            "ip {family} rule add not fwmark {MARK} table {MARK}"
        ))?;
        a.netns.run(&format!(
            "ip {family} rule add table main suppress_prefixlength 0"
        ))?;
    }
    for scope in ["all", "veth1"] {
        a.netns
            .sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
    }

    // The way of the tunnel's own datagrams, walked by somebody else.
    let endpoint = b.outer(outer);
    a.netns
        .run(&format!("ping -n -q -c 1 -W 1 -m {MARK} {endpoint}"))?;
    for target in beyond {
        traffic::pings(&a.netns, target, 100)?;
    }

    // Unmarked, the tunnel swallows its own datagrams; marked again, it finds out.
    a.wg().set("fwmark 0")?;
    ensure!(a.wg().dump()?.fwmark == 0, "the mark is still shown");
    traffic::ping_in_vain(&a.netns, beyond[0])?;
    a.wg().set(&format!("fwmark {MARK}"))?;
    for target in beyond {
        traffic::pings(&a.netns, target, 10).context("after the mark came back")?;
    }
    Ok(())
}
