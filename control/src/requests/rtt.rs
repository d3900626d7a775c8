//! How far machines are from one another, as each of them has told the store.

use std::collections::BTreeMap;

use ployz_api::{MachineId, MachineRtt, Outcome, Payload, RttRow};
use ployz_core::{MachineRecord, PeerRtt, RttRecord, View};

use super::internal;
use crate::clock;
use crate::daemon::Daemon;
use crate::store::RTT;

/// Machines tell every ten seconds, and a session in use is tested every five: past this a row is old.
const STALE_SECS: u64 = 60;

pub(super) async fn matrix(daemon: &Daemon) -> Outcome {
    let network = daemon.running_network()?;
    let own = network.round_trips(daemon).await.map_err(internal)?;
    let (mut records, mut warnings): (Vec<RttRecord>, _) = match network.store.list(RTT).await {
        Ok(records) => (records, Vec::new()),
        Err(failure) => {
            let warning = format!("only what this machine has measured: {failure}");
            (Vec::new(), vec![warning])
        }
    };
    // Its own word is fresher than what it told the store.
    records.retain(|record| record.id != own.id);
    records.push(own);
    let told: BTreeMap<MachineId, &RttRecord> = records.iter().map(|it| (it.id, it)).collect();
    let view = network.view();
    let unix_secs = clock::now().unix_secs;
    let mut rows = Vec::new();
    for (machine, peer) in pairs(&view) {
        let measured = told.get(&machine.id).and_then(|record| {
            let rtt = record.peers.iter().find(|rtt| rtt.peer == peer.id)?;
            Some((rtt, unix_secs.saturating_sub(record.written_at)))
        });
        let Some((rtt, told_secs)) = measured else {
            let why = match told.contains_key(&machine.id) {
                true => "there is no session, or the peer does not answer",
                false => "it has told the store nothing",
            };
            warnings.push(format!(
                "{} to {}: unmeasured, {why}",
                machine.name, peer.name
            ));
            continue;
        };
        let row = row(machine, peer, rtt, told_secs);
        if row.age_secs > STALE_SECS {
            let age = row.age_secs;
            warnings.push(format!(
                "{} to {}: {age} s old, as there was no traffic or no answer since",
                machine.name, peer.name
            ));
        }
        rows.push(row);
    }
    rows.sort_by(|a, b| (&a.machine, &a.peer).cmp(&(&b.machine, &b.peer)));
    Ok(Payload::MachineRtt(MachineRtt { rows, warnings }).into())
}

fn pairs(view: &View) -> impl Iterator<Item = (&MachineRecord, &MachineRecord)> {
    let others = move |machine: &MachineRecord| {
        let id = machine.id;
        view.machines().filter(move |peer| peer.id != id)
    };
    view.machines()
        .flat_map(move |machine| others(machine).map(move |peer| (machine, peer)))
}

fn row(machine: &MachineRecord, peer: &MachineRecord, rtt: &PeerRtt, told_secs: u64) -> RttRow {
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
        loss_pct: 100.0 * lost as f64 / rtt.sent.max(1) as f64,
        loss_fwd: rtt.lost_forward,
        loss_rev: rtt.lost_reverse,
        samples: rtt.samples,
        age_secs: rtt.age_secs + told_secs,
        stamps: if rtt.kernel_stamps { "kernel" } else { "user" }.to_owned(),
    }
}
