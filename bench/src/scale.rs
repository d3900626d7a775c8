//! Many peers on one daemon.

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::clock;
use crate::daemon::Daemon;
use crate::iperf::Flow;
use crate::measure::{Durations, Readings, prefixed, transfer};
use crate::swarm::Swarm;
use crate::topology::{End, Topology};
use crate::tunnel::{Plan, Tunnel, keys_of, set_up, start_end};
use crate::udp::search::search;
use crate::udp::sink::Sink;
use crate::udp::trial::Bench;
use crate::udp::{Load, Offload};
use crate::usage::{Usage, peak_memory_mib};
use crate::wgconf::WgConf;

const IDLE_PEERS: u32 = 200;
const KEEPALIVE_SECONDS: u16 = 25;
const HANDSHAKES: u32 = 2_000;
const FANIN_LOAD: Load = Load {
    payload_bytes: 1392,
    offload: Offload::None,
};
const FANIN_LOSS_MAX: f64 = 0.01;

/// By the name that `--only` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scale {
    /// TCP with 1, 100 and 1,000 peers configured and traffic on one
    Peers,
    /// Packets from 1, 100 and 1,000 peers in turn
    Fanin,
    /// 200 peers with a session, a keepalive and no traffic
    Idle,
    /// 2,000 peers that all want a handshake
    Handshakes,
}

impl Scale {
    pub(crate) fn run(self, plan: &Plan, durations: &Durations) -> Result<Readings> {
        match self {
            Self::Peers => configured_peers(plan, durations),
            Self::Fanin => fan_in(plan, durations),
            Self::Idle => Ok(prefixed("idle", idle_peers(plan, durations)?)),
            Self::Handshakes => Ok(prefixed("handshakes", handshakes(plan)?)),
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
        let mut of_these = transfer(&tunnel, Flow::Forward { streams: 1 }, durations.tcp)?;
        let gbps = of_these
            .iter()
            .find(|(key, _)| key == "gbps")
            .map_or(0.0, |(_, value)| *value);
        let ratio = gbps / *alone.get_or_insert(gbps);
        of_these.extend([
            ("first_ping_ms".to_owned(), first_ping_ms),
            ("ratio".to_owned(), ratio),
        ]);
        readings.extend(prefixed(&format!("peers{peers}"), of_these));
    }
    Ok(readings)
}

fn fan_in(plan: &Plan, durations: &Durations) -> Result<Readings> {
    let mut readings = Readings::new();
    for peers in [1, 100, 1_000] {
        let mut hub = Hub::start(plan, peers, 0)?;
        hub.swarm.shake_hands()?;
        let sink = Sink::open(hub.topology.namespace(End::A), End::A.overlay(), FANIN_LOAD)?;
        let mut bench = Bench::between(hub.swarm, sink, durations.udp_trial);
        let found = search(FANIN_LOSS_MAX, |rate| bench.run(rate))?;
        let of_these = vec![
            ("pps".to_owned(), found.pps),
            ("blast_pps".to_owned(), found.blast.received_pps),
            ("blast_sent_pps".to_owned(), found.blast.sent_pps),
            ("sender_busy".to_owned(), found.sender_busy),
        ];
        readings.extend(prefixed(&format!("fanin{peers}"), of_these));
    }
    Ok(readings)
}

fn idle_peers(plan: &Plan, durations: &Durations) -> Result<Readings> {
    let mut hub = Hub::start(plan, IDLE_PEERS, KEEPALIVE_SECONDS)?;
    hub.swarm.shake_hands()?;
    let pid = hub.daemon.pid();
    let before = Usage::read(&[pid])?;
    clock::pause(durations.idle);
    let spent = Usage::read(&[pid])?.since(&before);
    Ok(vec![
        ("memory_mib".to_owned(), peak_memory_mib(pid)?),
        (
            "cpu_s_per_min".to_owned(),
            spent.daemons / spent.elapsed.as_secs_f64() * 60.0,
        ),
    ])
}

fn handshakes(plan: &Plan) -> Result<Readings> {
    let mut hub = Hub::start(plan, HANDSHAKES, 0)?;
    let pid = hub.daemon.pid();
    let before = Usage::read(&[pid])?;
    let handshakes = hub.swarm.shake_hands()?;
    let spent = Usage::read(&[pid])?.since(&before);
    let answered = handshakes.answered as f64;
    Ok(vec![
        (
            "per_s".to_owned(),
            answered / handshakes.elapsed.as_secs_f64(),
        ),
        ("cpu_us".to_owned(), spent.daemons / answered * 1e6),
        ("cookies".to_owned(), handshakes.cookies as f64),
        ("retries".to_owned(), handshakes.retries as f64),
    ])
}

/// A daemon at A that knows every member of a swarm at B.
struct Hub {
    daemon: Daemon,
    swarm: Swarm,
    topology: Topology,
}

impl Hub {
    fn start(plan: &Plan, peers: u32, keepalive_seconds: u16) -> Result<Self> {
        let topology = Topology::create(plan.wire)?;
        let mut daemon = start_end(plan, &topology, End::A)?.context("a daemon")?;
        daemon.wait_until_ready()?;
        let peers_conf = Swarm::peers(peers, keepalive_seconds);
        let conf = WgConf {
            keys: keys_of(End::A),
            peers: peers_conf,
        };
        let interface = topology.interface(End::A);
        set_up(
            topology.namespace(End::A),
            &interface,
            &conf,
            End::A.overlay(),
        )?;
        let swarm = Swarm::new(&topology, peers, FANIN_LOAD.payload_bytes)?;
        Ok(Self {
            daemon,
            swarm,
            topology,
        })
    }
}
