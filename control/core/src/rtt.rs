//! Round trips as machines tell them: each its own, to every peer.

use std::time::Duration;

use ployz_api::{MachineId, PeerRtt};
use ployz_engine::{RttSnapshot, Stamper};

/// Converts a data plane's round-trip times to a peer into a record. Without samples the times are zero.
pub fn peer_rtt(peer: MachineId, rtt: &RttSnapshot) -> PeerRtt {
    let network = rtt.window.network().unwrap_or_default();
    let tunnel = rtt.window.tunnel().unwrap_or_default();
    let counts = &rtt.counts;
    PeerRtt {
        peer,
        min_ns: ns(network.min),
        p50_ns: ns(network.p50),
        p90_ns: ns(network.p90),
        p99_ns: ns(network.p99),
        max_ns: ns(network.max),
        stddev_ns: ns(network.standard_deviation),
        jitter_ns: ns(network.jitter),
        tunnel_p50_ns: ns(tunnel.p50),
        tunnel_p99_ns: ns(tunnel.p99),
        sent: counts.sent,
        lost_forward: counts.lost_forward,
        lost_reverse: counts.lost_reverse,
        reordered_forward: counts.reordered_forward,
        reordered_reverse: counts.reordered_reverse,
        duplicates: counts.duplicates,
        late: counts.late,
        forged: counts.forged,
        stalls: counts.stalls,
        samples: u32::try_from(rtt.window.samples().len()).unwrap_or(u32::MAX),
        age_secs: rtt.age.unwrap_or_default().as_secs(),
        kernel_stamps: rtt.window.by() == Stamper::Kernel,
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use ployz_api::RttRecord;
    use ployz_engine::{Sample, Window};
    use serde_json::Map;

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
            tunnel_p50_ns: widest,
            tunnel_p99_ns: widest,
            reordered_forward: 0,
            reordered_reverse: 0,
            duplicates: 0,
            late: 0,
            forged: 0,
            stalls: 99_999,
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
        assert!(len < 128 << 10, "{len} bytes");
    }

    #[test]
    fn a_window_becomes_a_row() {
        let peer = MachineId::new(1, 1);
        let mut rtt = RttSnapshot::default();
        assert_eq!(peer_rtt(peer, &rtt).samples, 0);
        rtt.window = Window::default();
        for us in [10, 30, 20] {
            let network = Duration::from_micros(us);
            rtt.window.push(Sample {
                network,
                tunnel: network * 2,
                by: Stamper::Kernel,
            });
        }
        let row = peer_rtt(peer, &rtt);
        assert_eq!((row.tunnel_p50_ns, row.tunnel_p99_ns), (40_000, 60_000));
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
