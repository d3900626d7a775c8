//! Whoever sends from an address that is somebody else's is not heard, but is still where it is.
//!
//! ```text
//!   a ========== b      a gives 192.168.241.2/32, which b uses, to a peer that is not there
//! ```

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::pair::{Family, PORT};
use ployz_netns_tests::relay::udp_socket;
use ployz_netns_tests::{Host, Keys, Pair, Plan, Stage, story, traffic};

const SILENCE: Duration = Duration::from_millis(500);

story!(more_specific_prefix_of_another_peer);

fn more_specific_prefix_of_another_peer(stage: &Stage) -> Result<()> {
    let Pair { a, b } = Pair::new(stage, Plan::of(stage))?;
    a.wg().set(&format!(
        "peer {} allowed-ips 192.168.241.0/24",
        b.keys.public
    ))?;
    let listener = udp_socket(&a.netns, SocketAddr::new(a.inner(Family::V4), 1111))?;
    send(&b, &listener)?;
    ensure!(hears(&listener)?, "an allowed packet did not arrive");

    let absent = Keys::generate(stage)?;
    a.wg().set(&format!(
        "peer {} allowed-ips 192.168.241.2/32",
        absent.public
    ))?;
    b.wg().set("listen-port 9997")?;
    send(&b, &listener)?;
    ensure!(
        !hears(&listener)?,
        "a packet came through from an address of another peer"
    );
    let endpoint = SocketAddr::new(b.outer(Family::V4), 9997);
    a.wait_endpoint(&b, endpoint)
        .context("an authenticated packet roams, dropped or not")?;

    // With the more specific prefix gone, the /24 is in force again.
    a.wg().set(&format!("peer {} remove", absent.public))?;
    send(&b, &listener)?;
    ensure!(hears(&listener)?, "the wider prefix did not come back");

    a_prefix_has_one_owner(&a, &b, &absent)?;
    what_is_nobodys_is_refused(&a, &b)?;
    ensure!(PORT != endpoint.port(), "the story needs two ports");
    Ok(())
}

/// Given to another peer, a prefix moves.
fn a_prefix_has_one_owner(a: &Host, b: &Host, absent: &Keys) -> Result<()> {
    a.wg().set(&format!(
        "peer {} allowed-ips 192.168.241.0/24",
        absent.public
    ))?;
    ensure!(
        a.wg().peer(&b.keys.public)?.allowed_ips.is_empty(),
        "one prefix, two owners"
    );
    traffic::ping_in_vain(&b.netns, a.inner(Family::V4))?;
    a.wg().set(&format!("peer {} remove", absent.public))?;
    a.wg().set(&format!(
        "peer {} allowed-ips {}",
        b.keys.public,
        b.allowed_ips()
    ))?;
    traffic::ping(&b.netns, a.inner(Family::V4))
}

/// An inner source that no peer has, and a destination that no peer has.
fn what_is_nobodys_is_refused(a: &Host, b: &Host) -> Result<()> {
    b.netns.address(b.link(), "192.168.241.77/24")?;
    let ping = b
        .netns
        .attempt("ping -n -q -c 1 -W 1 -I 192.168.241.77 192.168.241.1")?;
    ensure!(!ping.succeeded(), "a spoofed source came through");
    traffic::ping_in_vain(&a.netns, "192.168.241.200".parse()?)?;
    traffic::ping(&a.netns, b.inner(Family::V4))
}

fn send(b: &Host, listener: &UdpSocket) -> Result<()> {
    let from = udp_socket(&b.netns, SocketAddr::new(b.inner(Family::V4), 0))?;
    from.send_to(b"X", listener.local_addr()?)?;
    Ok(())
}

fn hears(listener: &UdpSocket) -> Result<bool> {
    listener.set_read_timeout(Some(SILENCE))?;
    Ok(listener.recv_from(&mut [0; 16]).is_ok())
}
