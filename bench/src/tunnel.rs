//! A contender at work between the two ends of a topology.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::contender::{Contender, Kind};
use crate::daemon::Daemon;
use crate::keys::Keys;
use crate::netns::Namespace;
use crate::ping::Pinger;
use crate::topology::{End, Topology, Wire};
use crate::wgconf::{PORT, Peer, WgConf};
use crate::{clock, process};

/// The payload of a 1,500-byte Ethernet frame after WireGuard's 60 bytes (80 over IPv6).
const MTU: u32 = 1420;
const FIRST_PING_LIMIT: Duration = Duration::from_secs(15);

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) contender: Contender,
    pub(crate) wire: Wire,
    /// Peers configured on both ends beside the one that carries traffic.
    pub(crate) idle_peers: u32,
    pub(crate) logs: PathBuf,
}

/// Daemons are declared first: they end before their namespaces go.
pub(crate) struct Tunnel {
    daemons: Vec<Daemon>,
    topology: Topology,
    contender: Contender,
    first_ping: Duration,
}

impl Tunnel {
    /// Starts both ends and returns when A has had an answer from B.
    pub(crate) fn start(plan: &Plan) -> Result<Self> {
        let topology = Topology::create(plan.wire)?;
        let started = clock::now();
        let daemons = start_ends(plan, &topology)?;
        let contender = plan.contender.clone();
        let mut tunnel = Self {
            daemons,
            topology,
            contender,
            first_ping: Duration::ZERO,
        };
        if !tunnel.contender.is_bare() {
            tunnel.configure(plan.idle_peers)?;
        }
        tunnel.first_ping = tunnel.wait_for_ping(started)?;
        Ok(tunnel)
    }

    /// From the start of the first process to the first answered ping.
    pub(crate) fn first_ping(&self) -> Duration {
        self.first_ping
    }

    pub(crate) fn namespace(&self, end: End) -> &Namespace {
        self.topology.namespace(end)
    }

    /// The address that `end` answers on through the contender.
    pub(crate) fn address(&self, end: End) -> Ipv4Addr {
        if self.contender.is_bare() {
            end.underlay()
        } else {
            end.overlay()
        }
    }

    /// Empty for the kernel and for bare veth.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.daemons.iter().map(Daemon::pid).collect()
    }

    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.daemons.iter_mut().try_for_each(Daemon::check_alive)
    }

    fn configure(&mut self, idle_peers: u32) -> Result<()> {
        self.daemons
            .iter_mut()
            .try_for_each(Daemon::wait_until_ready)?;
        for end in [End::A, End::B] {
            let namespace = self.topology.namespace(end);
            let interface = self.topology.interface(end);
            let conf = two_ended(end, idle_peers);
            set_up(namespace, &interface, &conf, end.overlay())?;
        }
        Ok(())
    }

    fn wait_for_ping(&self, started: Instant) -> Result<Duration> {
        let pinger = Pinger::open(self.namespace(End::A), self.address(End::B))?;
        let answer = clock::poll(FIRST_PING_LIMIT, || {
            pinger.ping(Duration::from_millis(1)).ok().flatten()
        });
        answer.with_context(|| format!("no ping in {FIRST_PING_LIMIT:?} through the tunnel"))?;
        Ok(started.elapsed())
    }
}

/// Gives an interface its configuration and address and brings it up, in one `wg` and one `ip`.
pub(crate) fn set_up(
    namespace: &Namespace,
    interface: &str,
    conf: &WgConf,
    address: Ipv4Addr,
) -> Result<()> {
    with_input(
        namespace,
        "wg",
        &["setconf", interface, "/dev/stdin"],
        &conf.render(),
    )?;
    let batch =
        format!("addr add {address}/16 dev {interface}\nlink set {interface} mtu {MTU} up\n");
    with_input(namespace, "ip", &["-batch", "-"], &batch)
}

fn start_ends(plan: &Plan, topology: &Topology) -> Result<Vec<Daemon>> {
    let mut daemons = Vec::new();
    for end in [End::A, End::B] {
        daemons.extend(start_end(plan, topology, end)?);
    }
    Ok(daemons)
}

pub(crate) fn start_end(plan: &Plan, topology: &Topology, end: End) -> Result<Option<Daemon>> {
    let namespace = topology.namespace(end);
    let interface = topology.interface(end);
    let name = &plan.contender.name;
    match &plan.contender.kind {
        Kind::Bare => Ok(None),
        Kind::Kernel => {
            namespace.ip(&format!("link add {interface} type wireguard"))?;
            Ok(None)
        }
        Kind::Daemon { .. } => {
            let command = plan
                .contender
                .command(&interface)
                .context("a daemon has a command")?;
            let log = plan.logs.join(format!("{name}-{}.log", end.name()));
            Daemon::start(name, command, namespace, &interface, &log).map(Some)
        }
    }
}

/// Both ends know each other; the idle peers are only ever configured.
fn two_ended(end: End, idle_peers: u32) -> WgConf {
    let other = end.other();
    let peer = Peer {
        public_base64: keys_of(other).public_base64(),
        allowed_ip: other.overlay(),
        endpoint: Some(SocketAddrV4::new(other.underlay(), PORT)),
        keepalive_seconds: 0,
    };
    let idle = (0..idle_peers).map(|number| Peer {
        public_base64: Keys::numbered(u64::from(number) + 1_000).public_base64(),
        allowed_ip: idle_address(number),
        endpoint: None,
        keepalive_seconds: 0,
    });
    // The peer with the traffic comes last, so that a daemon that searches in order shows it.
    WgConf {
        keys: keys_of(end),
        peers: idle.chain([peer]).collect(),
    }
}

pub(crate) fn keys_of(end: End) -> Keys {
    match end {
        End::A => Keys::numbered(1),
        End::B => Keys::numbered(2),
    }
}

/// 10.78.1.0 and up, clear of the two ends.
pub(crate) fn idle_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 78, 1, 0)) + number)
}

fn with_input(namespace: &Namespace, program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut command = Command::new(program);
    process::piped(command.args(arguments)).stdin(Stdio::piped());
    let mut child = namespace.spawn(&mut command)?;
    process::feed(&mut child, input)?;
    process::finish(child, process::SHORT).with_context(|| format!("{program} {arguments:?}"))?;
    Ok(())
}
