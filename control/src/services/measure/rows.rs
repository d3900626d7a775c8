//! What one machine has measured, as it is shown, and why it has not measured the rest.

use ployz_api::{PeerRtt, RttRecord, RttRow};
use ployz_core::MachineRecord;

/// Machines tell the store every ten seconds, and a session in use is tested every five: past this a row is old.
const STALE_SECS: u64 = 60;

/// Where it is known from.
pub(crate) enum Source<'a> {
    /// It was asked.
    Now(&'a RttRecord),
    /// It could not be asked, and why; what it had told the store by then.
    Earlier(Option<&'a RttRecord>, &'a str),
}

/// Rows and warnings, a pair in one of them at least.
pub(crate) fn of(
    machine: &MachineRecord,
    peers: &[MachineRecord],
    source: &Source<'_>,
    unix_secs: u64,
) -> (Vec<RttRow>, Vec<String>) {
    let (mut rows, mut warnings) = (Vec::new(), Vec::new());
    if let Source::Earlier(_, cause) = source {
        warnings.push(format!("{} could not measure: {cause}", machine.name));
    }
    for peer in peers {
        let warned = match row(machine, peer, source, unix_secs) {
            Ok(row) => {
                let age_secs = row.age_secs;
                rows.push(row);
                (age_secs > STALE_SECS).then(|| format!("{age_secs} s old"))
            }
            Err(why) => Some(format!("unmeasured, {why}")),
        };
        warnings.extend(warned.map(|why| format!("{} to {}: {why}", machine.name, peer.name)));
    }
    (rows, warnings)
}

fn row(
    machine: &MachineRecord,
    peer: &MachineRecord,
    source: &Source<'_>,
    unix_secs: u64,
) -> Result<RttRow, String> {
    let (record, reported_secs) = match source {
        Source::Now(record) => (*record, 0),
        Source::Earlier(Some(record), _) => (*record, unix_secs.saturating_sub(record.written_at)),
        Source::Earlier(None, _) => return Err("the store has no report of the machine".to_owned()),
    };
    match record.peers.iter().find(|rtt| rtt.peer == peer.id) {
        None => Err("no session".to_owned()),
        Some(rtt) if rtt.samples == 0 => {
            Err(format!("none of {} tests was answered in full", rtt.sent))
        }
        Some(rtt) => Ok(shown(machine, peer, rtt, reported_secs)),
    }
}

fn shown(
    machine: &MachineRecord,
    peer: &MachineRecord,
    rtt: &PeerRtt,
    reported_secs: u64,
) -> RttRow {
    let ms = |ns: u64| ns as f64 / 1e6;
    let lost = rtt.lost_forward + rtt.lost_reverse;
    RttRow {
        machine: machine.name.clone(),
        peer: peer.name.clone(),
        median_ms: ms(rtt.p50_ns),
        stddev_ms: ms(rtt.stddev_ns),
        min_ns: rtt.min_ns,
        p50_ns: rtt.p50_ns,
        p90_ns: rtt.p90_ns,
        p99_ns: rtt.p99_ns,
        max_ns: rtt.max_ns,
        jitter_ns: rtt.jitter_ns,
        tunnel_p50_ns: rtt.tunnel_p50_ns,
        tunnel_p99_ns: rtt.tunnel_p99_ns,
        loss_pct: 100.0 * lost as f64 / rtt.sent.max(1) as f64,
        loss_fwd: rtt.lost_forward,
        loss_rev: rtt.lost_reverse,
        reordered_fwd: rtt.reordered_forward,
        reordered_rev: rtt.reordered_reverse,
        duplicates: rtt.duplicates,
        late: rtt.late,
        forged: rtt.forged,
        stalls: rtt.stalls,
        samples: rtt.samples,
        age_secs: rtt.age_secs + reported_secs,
        stamps: if rtt.kernel_stamps { "kernel" } else { "user" }.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use ployz_api::MachineId;
    use ployz_core::peer_rtt;
    use ployz_engine::RttSnapshot;
    use serde_json::Map;

    use super::*;
    use crate::host::identity::Identity;
    use crate::testkit;

    fn machine(number: u16) -> MachineRecord {
        testkit::record(&Identity::generate().unwrap(), number)
    }

    fn measured(peer: MachineId, samples: u32) -> PeerRtt {
        PeerRtt {
            samples,
            sent: 4,
            lost_forward: 1,
            age_secs: 2,
            ..peer_rtt(peer, &RttSnapshot::default())
        }
    }

    #[test]
    fn every_pair_is_shown_or_warned_of() {
        let (own, peers) = (machine(1), [machine(2), machine(3), machine(4)]);
        let record = RttRecord {
            version: 1,
            id: own.id,
            written_at: 1_000,
            peers: vec![measured(peers[0].id, 3), measured(peers[1].id, 0)],
            unknown: Map::new(),
        };
        let names = peers
            .each_ref()
            .map(|peer| format!("{} to {}", own.name, peer.name));
        let unmeasured = [
            format!(
                "{}: unmeasured, none of 4 tests was answered in full",
                names[1]
            ),
            format!("{}: unmeasured, no session", names[2]),
        ];

        let (rows, warnings) = of(&own, &peers, &Source::Now(&record), 9_999);
        assert_eq!(
            (rows.len(), rows[0].age_secs, rows[0].loss_pct),
            (1, 2, 25.0)
        );
        assert_eq!(warnings, unmeasured);

        let earlier = Source::Earlier(Some(&record), "it is away");
        let (rows, warnings) = of(&own, &peers, &earlier, 1_100);
        assert_eq!(rows[0].age_secs, 102);
        assert_eq!(
            warnings[0],
            format!("{} could not measure: it is away", own.name)
        );
        assert_eq!(warnings[1], format!("{}: 102 s old", names[0]));
        assert_eq!(warnings[2..], unmeasured);

        let (rows, warnings) = of(&own, &peers, &Source::Earlier(None, "it is away"), 1_100);
        assert_eq!((rows.len(), warnings.len()), (0, 4));
    }
}
