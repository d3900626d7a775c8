//! The records of machines: what the operator wants, and what each machine says of itself.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::Ipv4Net;
use ployz_api::{Authority, Lifecycle, MachineId, Name, RegionRole};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What is written; N-1 is read as well, once there is one.
pub const RECORD_VERSION: u32 = 1;

/// A machine in bucket `machines`, under its id: the coordinators' word. Fields that we do not know are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/protocol.md describes every field")]
pub struct MachineRecord {
    pub version: u32,
    pub id: MachineId,
    pub name: Name,
    pub lifecycle: Lifecycle,
    pub authority: Authority,
    pub region: String,
    pub region_role: RegionRole,
    pub availability_zone: Option<String>,
    pub overlay_ip: Ipv4Addr,
    pub overlay_ip6: Ipv6Addr,
    pub subnet: Option<Ipv4Net>,
    pub wireguard_key: String,
    pub nkey: String,
    /// Where its WireGuard is reached, the best first.
    pub endpoints: Vec<SocketAddr>,
    /// The port of its store, if it has one.
    pub store_port: Option<u16>,
    pub created_at: u64,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A machine in bucket `observed`, under its id: its own word, which nobody else writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/protocol.md describes every field")]
pub struct ObservedRecord {
    pub version: u32,
    pub id: MachineId,
    /// The daemon's.
    pub software_version: String,
    pub backend: String,
    pub workloads: u32,
    /// Peers that it has a session with.
    pub sessions: u32,
    /// Where its management server is reached.
    #[serde(default)]
    pub management: Vec<SocketAddr>,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}
