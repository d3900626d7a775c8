//! The records of machines: what the operator wants, and what each machine says of itself.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::Ipv4Net;
use ployz_api::{
    Authority, InstanceId, Lifecycle, MachineId, Name, Posture, RegionRole, WorkloadName,
    WorkloadState, text,
};
use ployz_engine::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version that is written; the one before it is read as well, once there is one.
pub const RECORD_VERSION: u32 = 1;
/// The longest text in a record: a name, a label, or a version. What is longer is cut.
const TEXT_LEN_MAX: usize = 64;

/// A machine in bucket `machines`, under its id: the coordinators' word. Fields that we do not know are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/protocol.md describes every field")]
pub struct MachineRecord {
    pub version: u32,
    pub id: MachineId,
    pub name: Name,
    pub lifecycle: Lifecycle,
    pub authority: Authority,
    #[serde(deserialize_with = "text::parse::<TEXT_LEN_MAX, _, _>")]
    pub region: String,
    pub region_role: RegionRole,
    #[serde(default, deserialize_with = "text::parse::<TEXT_LEN_MAX, _, _>")]
    pub availability_zone: Option<String>,
    pub overlay_ip: Ipv4Addr,
    pub overlay_ip6: Ipv6Addr,
    pub subnet: Option<Ipv4Net>,
    pub wireguard_key: String,
    pub nkey: String,
    /// SHA-256 of the public key of its certificate; none until an earlier version's certificate has been renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_key: Option<String>,
    /// The endpoints of its WireGuard, the best first.
    pub endpoints: Vec<SocketAddr>,
    /// The port of its store, if it has one.
    pub store_port: Option<u16>,
    pub created_at: u64,
    #[serde(default, deserialize_with = "text::parse::<TEXT_LEN_MAX, _, _>")]
    pub labels: BTreeMap<String, String>,
    /// The workloads that it holds: a workload is placed by writing it here, while the machine is active.
    #[serde(default)]
    pub workloads: BTreeMap<InstanceId, WorkloadName>,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl MachineRecord {
    /// Its WireGuard key; none if that is damaged.
    pub fn key(&self) -> Option<PublicKey> {
        PublicKey::from_base64(&self.wireguard_key).ok()
    }

    /// The lifecycle that the operator wants, and its progress.
    pub fn posture(&self) -> Posture {
        Posture::of(self.lifecycle, self.workloads.len())
    }
}

/// The observed state of a machine, in bucket `observed`, under its id; only the machine itself writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/protocol.md describes every field")]
pub struct ObservedRecord {
    pub version: u32,
    pub id: MachineId,
    /// The daemon's.
    #[serde(deserialize_with = "text::parse::<TEXT_LEN_MAX, _, _>")]
    pub software_version: String,
    #[serde(deserialize_with = "text::parse::<TEXT_LEN_MAX, _, _>")]
    pub backend: String,
    /// How many run.
    pub workloads: u32,
    /// How each is that it holds.
    #[serde(default)]
    pub instances: BTreeMap<InstanceId, WorkloadState>,
    /// The runtime for workloads there: `docker` or `host`.
    #[serde(default, deserialize_with = "text::parse::<TEXT_LEN_MAX, _, _>")]
    pub runtime: String,
    /// Peers that it has a session with.
    pub sessions: u32,
    /// The machine's clock when it wrote this, in seconds since 1970. The store has its own time of receipt.
    #[serde(default)]
    pub clock_unix_secs: Option<u64>,
    /// The endpoints of its management server.
    #[serde(default)]
    pub management: Vec<SocketAddr>,
    #[serde(flatten, deserialize_with = "text::parse_fields")]
    pub unknown: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_harmless(value: &Value) -> bool {
        match value {
            Value::String(text) => text.chars().all(text::is_printable),
            Value::Array(values) => values.iter().all(is_harmless),
            Value::Object(fields) => fields
                .iter()
                .all(|(name, value)| name.chars().all(text::is_printable) && is_harmless(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => true,
        }
    }

    /// Each text of a record, with what a machine may want an operator to see instead of it.
    #[test]
    fn text_of_a_machine_is_printable_and_bounded() {
        let odd = format!("\u{1b}[2J\u{202e}\nm2  ready{}", "x".repeat(100_000));
        let observed = json!({
            "version": 1, "id": examples::id(1), "software_version": odd, "backend": odd,
            "runtime": odd, "workloads": 0, "sessions": 0, "later\n": ["a\u{1b}b"],
        });
        let observed: ObservedRecord = serde_json::from_value(observed).unwrap();
        for text in [
            &observed.software_version,
            &observed.backend,
            &observed.runtime,
        ] {
            assert!(
                text.len() <= TEXT_LEN_MAX && text.contains("m2  ready"),
                "{text}"
            );
        }
        assert!(is_harmless(&serde_json::to_value(&observed).unwrap()));
        let mut machine = serde_json::to_value(examples::machine(1, 1)).unwrap();
        machine["region"] = odd.as_str().into();
        machine["availability_zone"] = odd.as_str().into();
        machine["labels"] = json!({ odd.as_str(): odd });
        let machine: MachineRecord = serde_json::from_value(machine).unwrap();
        assert!(machine.region.len() <= TEXT_LEN_MAX);
        assert!(is_harmless(&serde_json::to_value(&machine).unwrap()));
    }
}

#[cfg(test)]
pub(crate) mod examples {
    use super::*;

    pub(crate) fn id(number: u8) -> MachineId {
        MachineId::new(0, number.into())
    }

    /// Machine `number`, at a port of its own.
    pub(crate) fn machine(number: u8, port: u16) -> MachineRecord {
        let key = PublicKey::from_bytes([number + 100; 32]);
        MachineRecord {
            version: RECORD_VERSION,
            id: id(number),
            name: Name::nearest(&format!("m{number}")),
            lifecycle: Lifecycle::Active,
            authority: Authority::Compute,
            region: "local".to_owned(),
            region_role: RegionRole::Compute,
            availability_zone: None,
            overlay_ip: Ipv4Addr::new(10, 101, number, 1),
            overlay_ip6: Ipv6Addr::new(0xfd00, 0, 0, number.into(), 0, 0, 0, 1),
            subnet: Ipv4Net::new(Ipv4Addr::new(10, 101, number, 0), 24).ok(),
            wireguard_key: key.to_string(),
            nkey: String::new(),
            certificate_key: None,
            endpoints: vec![SocketAddr::from(([192, 0, 2, number], port))],
            store_port: None,
            created_at: 0,
            labels: BTreeMap::new(),
            workloads: BTreeMap::new(),
            unknown: Map::new(),
        }
    }
}
