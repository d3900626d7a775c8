//! Round trips between machines: as they tell the store and one another, and as they are shown.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::MachineId;
use crate::name::Name;
use crate::text;

/// Round trips that can be asked for at a time: as many as a machine keeps of each of its peers, so that all of them
/// are in the figures.
pub const RTT_COUNT_MAX: u16 = 256;

/// The measurements of a machine, in bucket `rtt`, under its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/protocol.md describes every field")]
pub struct RttRecord {
    pub version: u32,
    pub id: MachineId,
    /// By the clock of the machine that writes; seconds since 1970.
    pub written_at: u64,
    pub peers: Vec<PeerRtt>,
    #[serde(flatten, deserialize_with = "text::parse_fields")]
    pub unknown: Map<String, Value>,
}

/// The round trips to one peer: those of the last samples in nanoseconds, and what became of the tests since the
/// session began. There are as many of these in a record as there are machines, so the names are short and zeros are
/// left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/protocol.md describes every field")]
pub struct PeerRtt {
    pub peer: MachineId,
    #[serde(rename = "min")]
    pub min_ns: u64,
    #[serde(rename = "p50")]
    pub p50_ns: u64,
    #[serde(rename = "p90")]
    pub p90_ns: u64,
    #[serde(rename = "p99")]
    pub p99_ns: u64,
    #[serde(rename = "max")]
    pub max_ns: u64,
    #[serde(rename = "stddev")]
    pub stddev_ns: u64,
    #[serde(rename = "jitter")]
    pub jitter_ns: u64,
    #[serde(rename = "tun_p50", default)]
    pub tunnel_p50_ns: u64,
    #[serde(rename = "tun_p99", default)]
    pub tunnel_p99_ns: u64,
    pub sent: u64,
    #[serde(rename = "lost_fwd")]
    pub lost_forward: u64,
    #[serde(rename = "lost_rev")]
    pub lost_reverse: u64,
    #[serde(rename = "ooo_fwd", default, skip_serializing_if = "is_zero")]
    pub reordered_forward: u64,
    #[serde(rename = "ooo_rev", default, skip_serializing_if = "is_zero")]
    pub reordered_reverse: u64,
    #[serde(rename = "dup", default, skip_serializing_if = "is_zero")]
    pub duplicates: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub late: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forged: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stalls: u64,
    pub samples: u32,
    pub age_secs: u64,
    #[serde(rename = "kernel")]
    pub kernel_stamps: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde wants"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Round trips between machines; of one of them in each answer, and of all of them in what is shown.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct MachineRtt {
    /// How many machines measure.
    pub machines: usize,
    /// By the names of both.
    pub rows: Vec<RttRow>,
    /// Pairs that are missing or old, and why.
    pub warnings: Vec<String>,
}

/// The round trip from one machine to another, as the first has measured it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the command line's contract")]
pub struct RttRow {
    pub machine: Name,
    pub peer: Name,
    pub median_ms: f64,
    pub stddev_ms: f64,
    pub min_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
    pub jitter_ns: u64,
    /// From the send call to the hands of the process, the peer's time included.
    pub tunnel_p50_ns: u64,
    pub tunnel_p99_ns: u64,
    pub loss_pct: f64,
    pub loss_fwd: u64,
    pub loss_rev: u64,
    pub reordered_fwd: u64,
    pub reordered_rev: u64,
    pub duplicates: u64,
    pub late: u64,
    pub forged: u64,
    pub stalls: u64,
    pub samples: u32,
    pub age_secs: u64,
    pub stamps: String,
}
