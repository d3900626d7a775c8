//! Round trips as machines tell them to the store: each its own, to every peer.

use std::time::Duration;

use ployz_api::MachineId;
use ployz_engine::{RttSnapshot, Stamper};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a machine has measured, in bucket `rtt`, under its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/protocol.md describes every field")]
pub struct RttRecord {
    pub version: u32,
    pub id: MachineId,
    /// By the clock of the machine that writes; seconds since 1970.
    pub written_at: u64,
    pub peers: Vec<PeerRtt>,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// The round trips to one peer: those of the last samples in nanoseconds, and what was lost since the session began. There
/// are as many of these in a record as there are machines, so the names are short.
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
    pub sent: u64,
    #[serde(rename = "lost_fwd")]
    pub lost_forward: u64,
    #[serde(rename = "lost_rev")]
    pub lost_reverse: u64,
    pub samples: u32,
    pub age_secs: u64,
    #[serde(rename = "kernel")]
    pub kernel_stamps: bool,
}

impl PeerRtt {
    /// Of what a data plane knows; none before there is a sample.
    pub fn of(peer: MachineId, rtt: &RttSnapshot) -> Option<Self> {
        let network = rtt.window.network()?;
        Some(Self {
            peer,
            min_ns: ns(network.min),
            p50_ns: ns(network.p50),
            p90_ns: ns(network.p90),
            p99_ns: ns(network.p99),
            max_ns: ns(network.max),
            stddev_ns: ns(network.standard_deviation),
            jitter_ns: ns(network.jitter),
            sent: rtt.counts.sent,
            lost_forward: rtt.counts.lost_forward,
            lost_reverse: rtt.counts.lost_reverse,
            samples: u32::try_from(rtt.window.samples().len()).unwrap_or(u32::MAX),
            age_secs: rtt.age.unwrap_or_default().as_secs(),
            kernel_stamps: rtt.window.by() == Stamper::Kernel,
        })
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use ployz_engine::{Sample, Window};

    use super::*;

    #[test]
    fn two_hundred_peers_fit_into_a_record() {
        let widest = 4_294_967_295_u64;
        let peer = PeerRtt {
            peer: MachineId::new(u64::MAX >> 16, u128::MAX >> 48),
            min_ns: widest,
            p50_ns: widest,
            p90_ns: widest,
            p99_ns: widest,
            max_ns: widest,
            stddev_ns: widest,
            jitter_ns: widest,
            sent: widest,
            lost_forward: widest,
            lost_reverse: widest,
            samples: 256,
            age_secs: widest,
            kernel_stamps: false,
        };
        let record = RttRecord {
            version: 1,
            id: peer.peer,
            written_at: widest,
            peers: vec![peer; 200],
            unknown: Map::new(),
        };
        let len = serde_json::to_vec(&record).unwrap().len();
        assert!(len < 64 << 10, "{len} bytes");
    }

    #[test]
    fn a_window_becomes_a_row_once_it_has_a_sample() {
        let peer = MachineId::new(1, 1);
        let mut rtt = RttSnapshot::default();
        assert_eq!(PeerRtt::of(peer, &rtt), None);
        rtt.window = Window::default();
        for us in [10, 30, 20] {
            let network = Duration::from_micros(us);
            rtt.window.push(Sample {
                network,
                tunnel: network * 2,
                by: Stamper::Kernel,
            });
        }
        let row = PeerRtt::of(peer, &rtt).unwrap();
        assert_eq!(
            (row.min_ns, row.p50_ns, row.max_ns),
            (10_000, 20_000, 30_000)
        );
        assert_eq!(
            (row.jitter_ns, row.samples, row.kernel_stamps),
            (15_000, 3, true)
        );
    }
}
