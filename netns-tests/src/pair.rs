//! The topology that most stories start from.
//!
//! ```text
//!   a: namespace                                      b: namespace
//!     veth1  10.0.0.1/24   fd00:10::1/64  ==========    veth2  10.0.0.2/24   fd00:10::2/64
//!     pz..a  192.168.241.1/24  fd00::1/64  ~~tunnel~~   pz..b  192.168.241.2/24  fd00::2/64
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::stage::Stage;
use crate::wait::wait_until;
use crate::wg::preshared_key;
use crate::{Contender, Daemon, Keys, Netns, Wg};

/// What every host of a pair listens on.
pub const PORT: u16 = 51820;

/// What WireGuard adds around an inner packet at most: IPv6, UDP, its own header and the tag.
pub const OVERHEAD: u32 = 40 + 8 + 16 + 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

/// A machine with one daemon on it.
#[derive(Debug)]
pub struct Host {
    // Fields drop in this order, and the daemon has to stop while its namespace is still there.
    pub daemon: Daemon,
    pub keys: Keys,
    pub netns: Netns,
    pub number: u8,
}

impl Host {
    /// Starts the daemon, gives it a key and a port, and brings its interface up with the inner addresses.
    pub fn new(stage: &Stage, netns: Netns, number: u8, contender: Contender) -> Result<Self> {
        let daemon = Daemon::start_as(stage, &netns, contender, &stage.interface(), "")?;
        Self::of(daemon, netns, number, Keys::generate(stage)?)
    }

    /// As [`Self::new`], of a daemon that runs, and with these keys.
    pub fn of(daemon: Daemon, netns: Netns, number: u8, keys: Keys) -> Result<Self> {
        let host = Self {
            daemon,
            keys,
            netns,
            number,
        };
        host.wg().set(&format!(
            "private-key {} listen-port {PORT}",
            host.keys.path()
        ))?;
        host.netns
            .address(host.link(), &format!("{}/24", host.inner(Family::V4)))?;
        host.netns
            .address(host.link(), &format!("{}/64", host.inner(Family::V6)))?;
        // Without a link-local address of its own the link carries what the story sends, and nothing else.
        let link = host.link();
        host.netns
            .run(&format!("ip link set dev {link} up addrgenmode none"))?;
        Ok(host)
    }

    #[must_use]
    pub fn wg(&self) -> Wg<'_> {
        Wg::new(&self.netns, self.daemon.interface())
    }

    /// The tunnel's interface.
    #[must_use]
    pub fn link(&self) -> &str {
        self.daemon.interface()
    }

    /// The cable's interface.
    #[must_use]
    pub fn cable(&self) -> String {
        format!("veth{}", self.number)
    }

    #[must_use]
    pub fn inner(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(192, 168, 241, self.number).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.number.into()).into(),
        }
    }

    #[must_use]
    pub fn outer(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 0, 0, self.number).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, self.number.into()).into(),
        }
    }

    #[must_use]
    pub fn endpoint(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.outer(family), PORT)
    }

    /// Its inner addresses as a list of allowed IPs.
    #[must_use]
    pub fn allowed_ips(&self) -> String {
        format!(
            "{}/32,{}/128",
            self.inner(Family::V4),
            self.inner(Family::V6)
        )
    }

    /// Adds `other` as a peer, with its inner addresses and whatever `more` says.
    pub fn know(&self, other: &Self, more: &str) -> Result<()> {
        let ips = other.allowed_ips();
        self.wg().set(&format!(
            "peer {} allowed-ips {ips} {more}",
            other.keys.public
        ))
    }

    /// What the daemon has found out about the path to its only peer.
    pub fn path(&self) -> Option<PathReport> {
        let status = self.daemon.uapi().status().ok()?;
        let (_, path) = status.iter().find(|(key, _)| key.starts_with("path_"))?;
        let mut words = path.split(' ').skip(1);
        Some(PathReport {
            mtu: words.next()?.parse().ok()?,
            batches: words.next()?.to_owned(),
        })
    }

    /// What the daemon has measured of the round trip to its only peer.
    pub fn rtt(&self) -> Option<RttReport> {
        let status = self.daemon.uapi().status().ok()?;
        let (_, line) = status.iter().find(|(key, _)| key.starts_with("rtt_"))?;
        RttReport::read(line)
    }

    /// Has the daemon test the way to its peer so many times, now.
    pub fn measure(&self, count: u16) -> Result<()> {
        let answer = self
            .daemon
            .uapi()
            .exchange(&format!("measure={count}\n\n"))?;
        ensure!(answer.trim() == "errno=0", "{answer}");
        Ok(())
    }

    /// Where `other` was last heard from.
    pub fn endpoint_of(&self, other: &Self) -> Result<Option<SocketAddr>> {
        Ok(self.wg().peer(&other.keys.public)?.endpoint)
    }

    /// Waits until `other` is known to be at `endpoint`.
    pub fn wait_endpoint(&self, other: &Self, endpoint: SocketAddr) -> Result<()> {
        let what = || format!("host {} to see {} at {endpoint}", self.number, other.number);
        let is_there = || self.endpoint_of(other).is_ok_and(|it| it == Some(endpoint));
        wait_until(what(), Duration::from_secs(3), is_there)
    }
}

/// What `status` says about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathReport {
    pub mtu: u32,
    pub batches: String,
}

/// What `status` says about a round trip.
#[derive(Debug, Clone, PartialEq)]
pub struct RttReport {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
    pub tunnel_p50: Duration,
    pub samples: usize,
    pub stamps: String,
    pub counts: RttCounts,
}

/// What became of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RttCounts {
    pub sent: u64,
    pub answered: u64,
    pub lost_forward: u64,
    pub lost_reverse: u64,
    pub reordered_forward: u64,
    pub reordered_reverse: u64,
    pub duplicates: u64,
    pub late: u64,
    pub forged: u64,
    pub stalls: u64,
    pub under_way: u64,
}

impl RttReport {
    /// A public key and words of `name=value`.
    fn read(line: &str) -> Option<Self> {
        let words: BTreeMap<&str, &str> = line
            .split(' ')
            .filter_map(|word| word.split_once('='))
            .collect();
        let us = |name: &str| {
            let us: f64 = words.get(name)?.parse().ok()?;
            Some(Duration::from_secs_f64(us / 1e6))
        };
        let count = |name: &str| words.get(name)?.parse::<u64>().ok();
        Some(Self {
            p50: us("p50_us")?,
            p99: us("p99_us")?,
            max: us("max_us")?,
            tunnel_p50: us("tunnel_p50_us")?,
            samples: count("samples")? as usize,
            stamps: (*words.get("stamps")?).to_owned(),
            counts: RttCounts {
                sent: count("sent")?,
                answered: count("answered")?,
                lost_forward: count("lost_forward")?,
                lost_reverse: count("lost_reverse")?,
                reordered_forward: count("reordered_forward")?,
                reordered_reverse: count("reordered_reverse")?,
                duplicates: count("duplicates")?,
                late: count("late")?,
                forged: count("forged")?,
                stalls: count("stalls")?,
                under_way: count("under_way")?,
            },
        })
    }
}

/// How a [`Pair`] is made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub outer: Family,
    /// Of the tunnel; the cable takes what WireGuard adds on top.
    pub mtu: u32,
    pub preshared_key: bool,
    pub a: Contender,
    pub b: Contender,
}

impl Plan {
    /// The implementation under test at both ends, over IPv4.
    #[must_use]
    pub fn of(stage: &Stage) -> Self {
        let contender = stage.contender();
        Self {
            outer: Family::V4,
            mtu: 1420,
            preshared_key: true,
            a: contender,
            b: contender,
        }
    }

    /// The same over another family.
    #[must_use]
    pub fn over(stage: &Stage, outer: Family) -> Self {
        Self {
            outer,
            ..Self::of(stage)
        }
    }
}

#[derive(Debug)]
pub struct Pair {
    pub a: Host,
    pub b: Host,
}

impl Pair {
    /// Both hosts know each other; no packet has been sent.
    pub fn new(stage: &Stage, plan: Plan) -> Result<Self> {
        let pair = Self::strangers(stage, plan)?;
        let psk = if plan.preshared_key {
            format!("preshared-key {}", preshared_key(stage)?)
        } else {
            String::new()
        };
        let Self { a, b } = &pair;
        a.know(b, &format!("{psk} endpoint {}", b.endpoint(plan.outer)))?;
        b.know(a, &format!("{psk} endpoint {}", a.endpoint(plan.outer)))?;
        Ok(pair)
    }

    /// Cable, daemons, keys and addresses, but no peers.
    pub fn strangers(stage: &Stage, plan: Plan) -> Result<Self> {
        let (a, b) = (Netns::new(stage, "a")?, Netns::new(stage, "b")?);
        a.cable("veth1", &b, "veth2")?;
        for (netns, number) in [(&a, 1), (&b, 2)] {
            let cable = format!("veth{number}");
            netns.mtu(&cable, (plan.mtu + OVERHEAD).max(1500))?;
            netns.address(&cable, &format!("10.0.0.{number}/24"))?;
            netns.address(&cable, &format!("fd00:10::{number}/64"))?;
        }
        let pair = Self {
            a: Host::new(stage, a, 1, plan.a)?,
            b: Host::new(stage, b, 2, plan.b)?,
        };
        for host in [&pair.a, &pair.b] {
            host.netns.mtu(host.link(), plan.mtu)?;
        }
        Ok(pair)
    }

    /// Both ends stop as they promise to.
    pub fn stop(self, signal: nix::sys::signal::Signal) -> Result<()> {
        let Host {
            daemon, netns: a, ..
        } = self.a;
        daemon.stop(signal, &a)?;
        let Host {
            daemon, netns: b, ..
        } = self.b;
        daemon.stop(signal, &b)
    }
}
