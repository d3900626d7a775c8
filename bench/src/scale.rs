//! Many peers on one daemon.

use anyhow::Result;
use clap::ValueEnum;

use crate::iperf::Flow;
use crate::measure::{Durations, Readings, prefixed, transfer};
use crate::tunnel::{Plan, Tunnel};

/// By the name that `--only` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scale {
    /// TCP with 1, 100 and 1,000 peers configured and traffic on one.
    Peers,
}

impl Scale {
    pub(crate) fn run(self, plan: &Plan, durations: &Durations) -> Result<Readings> {
        match self {
            Self::Peers => configured_peers(plan, durations),
        }
    }
}

/// TCP through one peer, with others configured beside it on both ends.
fn configured_peers(plan: &Plan, durations: &Durations) -> Result<Readings> {
    let mut readings = Readings::new();
    let mut alone = None;
    for peers in [1, 100, 1_000] {
        let plan = Plan {
            idle_peers: peers - 1,
            ..plan.clone()
        };
        let tunnel = Tunnel::start(&plan)?;
        let first_ping_ms = tunnel.first_ping().as_secs_f64() * 1e3;
        let transfer = transfer(&tunnel, Flow::Forward { streams: 1 }, durations.tcp)?;
        let gbps = transfer
            .iter()
            .find(|(key, _)| key == "gbps")
            .map_or(0.0, |(_, value)| *value);
        let ratio = gbps / *alone.get_or_insert(gbps);
        let mut of_these = transfer;
        of_these.extend([
            ("first_ping_ms".to_owned(), first_ping_ms),
            ("ratio".to_owned(), ratio),
        ]);
        readings.extend(prefixed(&format!("peers{peers}"), of_these));
    }
    Ok(readings)
}
