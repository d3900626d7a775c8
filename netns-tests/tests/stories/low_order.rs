//! Public keys of low order: nothing is sent to them, and nothing is answered.
//!
//! ```text
//!   a ========== b      a has seven peers at b, where nothing runs but a listener
//! ```

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use ployz_netns_tests::forged_handshake::{LOW_ORDER_POINTS, low_order_initiation};
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::relay::udp_socket;
use ployz_netns_tests::wg::bytes;
use ployz_netns_tests::{Host, Pair, Plan, Stage, story, traffic};

/// Two keepalives of a second each would have come and gone.
const SILENCE: Duration = Duration::from_millis(2500);

story!(nothing_sent_and_nothing_answered);

fn nothing_sent_and_nothing_answered(stage: &Stage) -> Result<()> {
    let Pair { mut a, b } = Pair::strangers(stage, Plan::of(stage))?;
    let listener = udp_socket(&b.netns, SocketAddr::new(b.outer(Family::V4), 1111))?;
    let endpoint = listener.local_addr()?;
    for (number, point) in (1..).zip(LOW_ORDER_POINTS) {
        let ip = format!("192.168.241.{}/32", 100 + number);
        let peer = format!("peer {point} endpoint {endpoint} allowed-ips {ip}");
        a.wg().set(&format!("{peer} persistent-keepalive 1"))?;
    }
    traffic::ping_in_vain(&a.netns, "192.168.241.101".parse()?)?;
    ensure!(!hears(&listener)?, "sent a handshake to a low-order key");

    forgeries_are_not_answered(&a, &listener)?;

    ensure!(a.daemon.is_alive(), "the daemon died of it");
    for peer in a.wg().dump()?.peers {
        ensure!(
            peer.latest_handshake == 0,
            "a session with {}",
            peer.public_key
        );
        ensure!(
            peer.endpoint == Some(endpoint),
            "{} roamed",
            peer.public_key
        );
    }
    Ok(())
}

/// Anybody can compute what such a peer would send; from another port, to see that nobody roams.
fn forgeries_are_not_answered(a: &Host, listener: &UdpSocket) -> Result<()> {
    let attacker = listener.try_clone()?;
    for point in LOW_ORDER_POINTS {
        let forgery = low_order_initiation(&bytes(&a.keys.public)?, &bytes(point)?);
        attacker.send_to(&forgery, a.endpoint(Family::V4))?;
    }
    ensure!(
        !hears(listener)?,
        "answered an initiation that anybody can forge"
    );
    Ok(())
}

fn hears(listener: &UdpSocket) -> Result<bool> {
    listener.set_read_timeout(Some(SILENCE))?;
    Ok(listener.recv_from(&mut [0; 2048]).is_ok())
}
