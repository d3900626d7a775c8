//! A peer is where its last authenticated packet came from.
//!
//! ```text
//!   a ========== b      a changes its port, then its address, over IPv4 and over IPv6
//! ```

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::pair::{Family, PORT};
use ployz_netns_tests::{Host, Pair, Plan, Stage, story, traffic};

story!(follows_port_and_address);

fn follows_port_and_address(stage: &Stage) -> Result<()> {
    for outer in Family::BOTH {
        let Pair { a, b } = Pair::new(stage, Plan::over(stage, outer))?;
        traffic::ping(&a.netns, b.inner(Family::V4))?;
        let session = b.wg().peer(&a.keys.public)?.latest_handshake;
        roam(&a, &b, outer).with_context(|| format!("outer {outer:?}"))?;
        let afterwards = b.wg().peer(&a.keys.public)?.latest_handshake;
        ensure!(session == afterwards, "roaming took a new handshake");
    }
    Ok(())
}

fn roam(a: &Host, b: &Host, outer: Family) -> Result<()> {
    a.wg().set("listen-port 9999")?;
    traffic::ping(&a.netns, b.inner(Family::V6))?;
    b.wait_endpoint(a, SocketAddr::new(a.outer(outer), 9999))?;
    traffic::ping(&b.netns, a.inner(Family::V4)).context("back to the new port")?;

    a.wg().set(&format!("listen-port {PORT}"))?;
    let address = move_house(a, outer)?;
    traffic::ping(&a.netns, b.inner(Family::V4)).context("from the new address")?;
    b.wait_endpoint(a, SocketAddr::new(address, PORT))?;
    traffic::ping(&b.netns, a.inner(Family::V6)).context("back to the new address")?;

    // Whoever only configures a peer again, without an endpoint, does not send it back to where it was.
    b.wg()
        .set(&format!("peer {} persistent-keepalive 25", a.keys.public))?;
    ensure!(
        b.endpoint_of(a)? == Some(SocketAddr::new(address, PORT)),
        "the endpoint went back"
    );
    Ok(())
}

fn move_house(host: &Host, outer: Family) -> Result<IpAddr> {
    let (address, prefix) = match outer {
        Family::V4 => ("10.0.0.99", 24),
        Family::V6 => ("fd00:10::99", 64),
    };
    host.netns
        .remove_address(&host.cable(), &format!("{}/{prefix}", host.outer(outer)))?;
    host.netns
        .address(&host.cable(), &format!("{address}/{prefix}"))?;
    Ok(address.parse()?)
}
