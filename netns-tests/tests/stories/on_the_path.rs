//! Somebody on the path loses, repeats and returns what he sees.
//!
//! ```text
//!   a ====== relay ====== b      each believes that the other is at a port of the relay, which is on b's host
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::counters::netstat;
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::relay::{DATA, INITIATION, RESPONSE, Relay, Seen, udp_socket};
use ployz_netns_tests::wait::stays;
use ployz_netns_tests::{Host, Pair, Stage, story, traffic};

/// An initiation that got no answer is repeated after five seconds and up to a third of one.
const TWO_TRIES: Duration = Duration::from_secs(12);

const SILENCE: Duration = Duration::from_millis(500);

mod lost {
    use super::*;
    story!(first_initiation_and_first_response);
}

mod repeated {
    use super::*;
    story!(nothing_happens_twice);
}

fn first_initiation_and_first_response(stage: &Stage) -> Result<()> {
    for (kind, name) in [(INITIATION, "initiation"), (RESPONSE, "response")] {
        let seen = AtomicU32::new(0);
        let (pair, relay) = Relay::between_strangers(
            stage,
            Box::new(move |datagram: &mut [u8], _| {
                datagram.first() != Some(&kind) || seen.fetch_add(1, Ordering::Relaxed) > 0
            }),
        )?;
        recovers(&pair, &relay).with_context(|| format!("the first {name} was lost"))?;
    }
    Ok(())
}

/// The packets that wait for the handshake are sent once it is through, the first one included.
fn recovers(pair: &Pair, relay: &Relay) -> Result<()> {
    let Pair { a, b } = pair;
    let target = b.inner(Family::V4);
    let ping = a.netns.attempt(&format!(
        "ping -n -q -c 1 -W {} {target}",
        TWO_TRIES.as_secs()
    ))?;
    ensure!(ping.succeeded(), "the staged packet was not sent: {ping}");
    let seen = relay.seen();
    let initiations = Seen::count(&seen.from_client, INITIATION);
    ensure!(initiations == 2, "{initiations} initiations instead of two");
    traffic::pings(&a.netns, target, 10)
}

fn nothing_happens_twice(stage: &Stage) -> Result<()> {
    let (Pair { a, b }, relay) = Relay::between_strangers(stage, Box::new(|_: &mut [u8], _| true))?;
    traffic::pings(&a.netns, b.inner(Family::V4), 20)?;
    let seen = relay.seen();
    ensure!(
        Seen::count(&seen.from_client, DATA) >= 20,
        "the relay has seen too little"
    );
    let before = State::of(&b, &a)?;

    // From another port, so that a repetition that is taken for real shows as roaming as well.
    let repeater = udp_socket(&b.netns, (b.outer(Family::V4), 0).into())?;
    for datagram in &seen.from_client {
        repeater.send_to(datagram, b.endpoint(Family::V4))?;
        // And a's own words back to a.
        repeater.send_to(datagram, a.endpoint(Family::V4))?;
    }
    repeater.set_read_timeout(Some(SILENCE))?;
    ensure!(
        repeater.recv_from(&mut [0; 2048]).is_err(),
        "a repeated initiation was answered"
    );
    stays("nothing happens twice", SILENCE, || {
        State::of(&b, &a).is_ok_and(|it| it == before)
    })?;
    ensure!(
        a.endpoint_of(&b)? == Some(relay.address),
        "a's own words made its peer roam"
    );
    traffic::pings(&a.netns, b.inner(Family::V4), 10)
}

/// What a repeated datagram could change at `host`.
#[derive(Debug, PartialEq, Eq)]
struct State {
    echo_requests: u64,
    endpoint: Option<SocketAddr>,
    latest_handshake: u64,
    received: u64,
}

impl State {
    fn of(host: &Host, other: &Host) -> Result<Self> {
        let peer = host.wg().peer(&other.keys.public)?;
        Ok(Self {
            echo_requests: netstat(&host.netns, "Icmp", "InEchos")?,
            endpoint: peer.endpoint,
            latest_handshake: peer.latest_handshake,
            received: peer.received,
        })
    }
}
