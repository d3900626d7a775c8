//! The measurements through a tunnel between the two ends.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::clock;
use crate::iperf::{Flow, Iperf, Throughput};
use crate::ping::{Pinger, RoundTrips};
use crate::topology::End;
use crate::tunnel::Tunnel;
use crate::udp::search::search;
use crate::udp::trial::Bench;
use crate::udp::{Load, Offload};
use crate::usage::{Spent, Usage, peak_memory_mib};

/// By the name that `--only` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pair {
    Tcp1,
    Tcp4,
    Tcp1r,
    Tcpboth,
    Udp1392,
    Udp1380g,
    Udp64,
    Ping,
    Pingload,
}

/// How long each takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Durations {
    pub(crate) tcp: Duration,
    pub(crate) ping: Duration,
    pub(crate) udp_trial: Duration,
    pub(crate) idle: Duration,
}

/// Keys of [`crate::metric::METRICS`] without their prefix, and values.
pub(crate) type Readings = Vec<(String, f64)>;

/// The load starts before the first ping: slow start is not what is measured.
const LOAD_LEAD: Duration = Duration::from_millis(500);

impl Durations {
    pub(crate) const FULL: Self = Self {
        tcp: Duration::from_secs(5),
        ping: Duration::from_secs(4),
        udp_trial: Duration::from_millis(800),
        idle: Duration::from_secs(30),
    };
    pub(crate) const QUICK: Self = Self {
        tcp: Duration::from_secs(2),
        ping: Duration::from_millis(1_500),
        udp_trial: Duration::from_millis(300),
        idle: Duration::from_secs(5),
    };
}

impl Pair {
    pub(crate) fn run(self, tunnel: &Tunnel, durations: &Durations) -> Result<Readings> {
        let tcp = |flow| transfer(tunnel, flow, durations.tcp);
        let udp = |load, loss_max| packet_rate(tunnel, load, loss_max, durations.udp_trial);
        let readings = match self {
            Self::Tcp1 => tcp(Flow::Forward { streams: 1 }),
            Self::Tcp4 => tcp(Flow::Forward { streams: 4 }),
            Self::Tcp1r => tcp(Flow::Reverse),
            Self::Tcpboth => tcp(Flow::Both),
            Self::Udp1392 => udp(
                Load {
                    payload_bytes: 1392,
                    offload: Offload::None,
                },
                0.01,
            ),
            Self::Udp1380g => udp(
                Load {
                    payload_bytes: 1380,
                    offload: Offload::Segmentation,
                },
                0.01,
            ),
            Self::Udp64 => udp(
                Load {
                    payload_bytes: 64,
                    offload: Offload::None,
                },
                0.001,
            ),
            Self::Ping => idle_ping(tunnel, durations.ping),
            Self::Pingload => loaded_ping(tunnel, durations.ping),
        };
        Ok(prefixed(&name_of(self), readings?))
    }
}

/// The name on the command line, which is the prefix of its readings too.
pub(crate) fn name_of(value: impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Puts `prefix.` before every key.
pub(crate) fn prefixed(prefix: &str, readings: Readings) -> Readings {
    readings
        .into_iter()
        .map(|(key, value)| (format!("{prefix}.{key}"), value))
        .collect()
}

/// Peak memory of both daemons; nothing for the kernel and for bare veth.
pub(crate) fn memory(tunnel: &Tunnel) -> Result<Readings> {
    let pids = tunnel.pids();
    let keys = ["memory.a_mib", "memory.b_mib"];
    keys.iter()
        .zip(pids)
        .map(|(key, pid)| Ok(((*key).to_owned(), peak_memory_mib(pid)?)))
        .collect()
}

/// Runs a TCP transfer, and measures the processor time that it takes.
pub(crate) fn transfer(tunnel: &Tunnel, flow: Flow, duration: Duration) -> Result<Readings> {
    let before = Usage::read(&tunnel.pids())?;
    let throughput = Iperf::start(tunnel, flow, duration)?.finish()?;
    let spent = Usage::read(&tunnel.pids())?.since(&before);
    Ok(tcp_readings(throughput, spent, tunnel.pids().is_empty()))
}

fn tcp_readings(throughput: Throughput, spent: Spent, no_daemons: bool) -> Readings {
    let gigabytes = (throughput.bytes / 1e9).max(f64::MIN_POSITIVE);
    let mut readings = vec![
        ("gbps".to_owned(), throughput.gbps),
        ("machine_s_per_gb".to_owned(), spent.machine / gigabytes),
        ("retransmits".to_owned(), throughput.retransmits),
    ];
    if !no_daemons {
        readings.push(("daemons_s_per_gb".to_owned(), spent.daemons / gigabytes));
    }
    readings
}

fn packet_rate(tunnel: &Tunnel, load: Load, loss_max: f64, trial: Duration) -> Result<Readings> {
    let mut bench = Bench::open(tunnel, load, trial)?;
    let found = search(loss_max, |rate| bench.run(rate))?;
    Ok(vec![
        ("pps".to_owned(), found.pps),
        ("blast_pps".to_owned(), found.blast.received_pps),
        ("blast_sent_pps".to_owned(), found.blast.sent_pps),
        ("reordered".to_owned(), found.reordered as f64),
        ("sender_busy".to_owned(), found.sender_busy),
    ])
}

fn idle_ping(tunnel: &Tunnel, duration: Duration) -> Result<Readings> {
    let pinger = Pinger::open(tunnel.namespace(End::A), tunnel.address(End::B))?;
    ping_readings(&pinger.run(duration)?)
}

fn loaded_ping(tunnel: &Tunnel, duration: Duration) -> Result<Readings> {
    let pinger = Pinger::open(tunnel.namespace(End::A), tunnel.address(End::B))?;
    let flow = Flow::Forward { streams: 1 };
    let whole_seconds = Duration::from_secs((duration + LOAD_LEAD * 2).as_secs_f64().ceil() as u64);
    let load = Iperf::start(tunnel, flow, whole_seconds)?;
    clock::pause(LOAD_LEAD);
    let trips = pinger.run(duration);
    let throughput = load.finish()?;
    let mut readings = ping_readings(&trips?)?;
    readings.push(("gbps".to_owned(), throughput.gbps));
    Ok(readings)
}

fn ping_readings(trips: &RoundTrips) -> Result<Readings> {
    let mut readings = Readings::new();
    for percent in [50, 99] {
        let value = trips
            .percentile_us(percent)
            .context("no ping was answered")?;
        readings.push((format!("p{percent}_us"), value));
    }
    readings.push(("lost".to_owned(), f64::from(trips.lost)));
    readings.push(("samples".to_owned(), trips.sorted.len() as f64));
    Ok(readings)
}
