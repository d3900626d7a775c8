//! Stops when asked to, in the middle of everything.
//!
//! ```text
//!   a ========== b      TCP at full speed from a to b; first a is stopped, then b
//! ```

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use ployz_netns_tests::counters::LinkBytes;
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::traffic::{Iperf, Protocol};
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Daemon, Pair, Plan, Stage, story};

/// Enough that every buffer of the way has been in use.
const UNDER_WAY: u64 = 20_000_000;

story!(under_load);

fn under_load(stage: &Stage) -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            stop_under(stage, protocol, signal)
                .with_context(|| format!("{signal} under {protocol:?}"))?;
        }
    }
    Ok(())
}

fn stop_under(stage: &Stage, protocol: Protocol, signal: Signal) -> Result<()> {
    let pair = Pair::new(stage, Plan::of(stage))?;
    let (a, b) = (&pair.a, &pair.b);
    let (client, server, target) = (&a.netns, &b.netns, b.inner(Family::V4));
    let load = Iperf {
        client,
        server,
        target,
        protocol,
        streams: 4,
        seconds: 30,
    }
    .start()?;
    wait_until("the load to be under way", Duration::from_secs(10), || {
        LinkBytes::of(&b.netns, b.link()).is_ok_and(|bytes| bytes.received > UNDER_WAY)
    })?;

    let Pair { a, b } = pair;
    let (interface, contender) = (a.link().to_owned(), a.daemon.contender());
    a.daemon.stop(signal, &a.netns)?;
    // Nothing is in the way of the next one, and it too stops while packets are still coming in.
    let again = Daemon::start_as(stage, &a.netns, contender, &interface, "")?;
    again.stop(signal, &a.netns)?;
    b.daemon.stop(signal, &b.netns)?;
    drop(load);
    Ok(())
}
