//! Two namespaces joined by one veth pair.
//!
//! ```text
//!   ployz-bench-<pid>-<n>-a                     ployz-bench-<pid>-<n>-b
//!   +----------------------+                    +----------------------+
//!   | tunnel   10.78.0.1   |                    |   10.78.0.2   tunnel |
//!   | veth     10.77.0.1   +--------------------+   10.77.0.2   veth   |
//!   +----------------------+                    +----------------------+
//! ```

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::netns::Namespace;
use crate::{leftovers, process};

pub(crate) const DEVICE: &str = "veth";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    A,
    B,
}

impl End {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The address on the veth pair.
    pub(crate) fn underlay(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.host())
    }

    /// The address inside the tunnel.
    pub(crate) fn overlay(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, 0, self.host())
    }

    fn host(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }
}

/// The kind of link that the veth pair stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// A veth pair as the kernel makes it: TSO and USO pass through whole.
    Veth,
    /// TSO and USO off and GRO on: each datagram crosses alone, as over a network card.
    Card,
}

impl Wire {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Card => "veth without TSO and USO, with GRO",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Topology {
    /// Unique on this machine: control sockets are shared by all network namespaces.
    id: String,
    a: Namespace,
    b: Namespace,
}

impl Topology {
    pub(crate) fn create(wire: Wire) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let a = Namespace::create(&format!("{}{pid}-{count}-a", leftovers::PREFIX))?;
        let b = Namespace::create(&format!("{}{pid}-{count}-b", leftovers::PREFIX))?;
        let topology = Self {
            id: format!("pb{pid}x{count}"),
            a,
            b,
        };
        topology.connect(wire)?;
        Ok(topology)
    }

    pub(crate) fn namespace(&self, end: End) -> &Namespace {
        match end {
            End::A => &self.a,
            End::B => &self.b,
        }
    }

    /// At most 14 characters, of the 15 that an interface name may have.
    pub(crate) fn interface(&self, end: End) -> String {
        format!("{}{}", self.id, end.name())
    }

    fn connect(&self, wire: Wire) -> Result<()> {
        let (a, b) = (self.a.name(), self.b.name());
        let link = format!("link add {DEVICE} netns {a} type veth peer name {DEVICE} netns {b}");
        process::run(
            Command::new("ip").args(link.split_whitespace()),
            process::SHORT,
        )?;
        for end in [End::A, End::B] {
            let namespace = self.namespace(end);
            namespace.ip(&format!("addr add {}/24 dev {DEVICE}", end.underlay()))?;
            namespace.ip(&format!("link set {DEVICE} up"))?;
            if wire == Wire::Card {
                let switches = [
                    "-K",
                    DEVICE,
                    "tso",
                    "off",
                    "tx-udp-segmentation",
                    "off",
                    "gro",
                    "on",
                ];
                namespace.run(Command::new("ethtool").args(switches), process::SHORT)?;
            }
        }
        Ok(())
    }
}
