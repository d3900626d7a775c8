//! Ten pings, and not a byte more than WireGuard has to send.
//!
//! ```text
//!   a ========== b      a pings b ten times through the tunnel
//! ```
//!
//! A ping is 84 bytes, padded to 96, and 32 bytes of header and tag make it 128: ten are 1280. The
//! initiator also receives a handshake response (92) and sends an initiation (148), and possibly one
//! keepalive (32) that confirms the session.

use anyhow::{Result, ensure};
use ployz_netns_tests::counters::LinkBytes;
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::{Host, Pair, Plan, Stage, story, traffic};

const TEN_PINGS: u64 = 10 * (96 + 32);
const INITIATION: u64 = 148;
const RESPONSE: u64 = 92;
const KEEPALIVE: u64 = 32;

story!(ten_pings);

fn ten_pings(stage: &Stage) -> Result<()> {
    let Pair { a, b } = Pair::new(stage, Plan::of(stage))?;
    for host in [&a, &b] {
        let fresh = &host.wg().dump()?.peers[0];
        ensure!(
            fresh.latest_handshake == 0,
            "a handshake before anybody sent anything"
        );
        ensure!(
            (fresh.received, fresh.sent) == (0, 0),
            "bytes before anybody sent anything"
        );
    }

    traffic::pings(&a.netns, b.inner(Family::V4), 10)?;

    let initiator = a.wg().peer(&b.keys.public)?;
    let responder = b.wg().peer(&a.keys.public)?;
    ensure!(initiator.received == TEN_PINGS + RESPONSE, "{initiator:?}");
    ensure!(is_sent_by_initiator(initiator.sent), "{initiator:?}");
    ensure!(responder.sent == TEN_PINGS + RESPONSE, "{responder:?}");
    ensure!(is_sent_by_initiator(responder.received), "{responder:?}");
    ensure!(
        initiator.latest_handshake != 0 && responder.latest_handshake != 0,
        "no handshake"
    );

    for host in [&a, &b] {
        inner_bytes_are_those_of_the_pings(host)?;
    }
    Ok(())
}

fn is_sent_by_initiator(bytes: u64) -> bool {
    let least = TEN_PINGS + INITIATION;
    [least, least + KEEPALIVE].contains(&bytes)
}

/// Padding and keepalives are the tunnel's own affair: the interface sees packets as they were sent.
fn inner_bytes_are_those_of_the_pings(host: &Host) -> Result<()> {
    let bytes = LinkBytes::of(&host.netns, host.link())?;
    ensure!(
        bytes
            == LinkBytes {
                received: 840,
                sent: 840
            },
        "on the interface: {bytes:?}"
    );
    Ok(())
}
