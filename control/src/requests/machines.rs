//! Seeing machines. Answered from the view: it takes no store to look.

use std::collections::BTreeMap;
use std::time::Instant;

use ployz_api::{Code, Failure, MachineInspect, MachineList, MachineRow, Outcome, Payload};
use ployz_core::{MachineRecord, SelectError, View};
use ployz_engine::PublicKey;
use serde::Serialize;
use serde_json::Value;

use crate::daemon::Daemon;
use crate::host::clock;
use crate::host::failure::internal;
use crate::network::{Network, is_session};
use crate::overlay::PeerTraffic;

pub(crate) type Traffic = BTreeMap<PublicKey, PeerTraffic>;

pub(crate) async fn list(daemon: &Daemon) -> Outcome {
    let network = daemon.running_network()?;
    let now = clock::now();
    let traffic = traffic(daemon, now.instant).await?;
    let view = network.view();
    let view_age_secs = view.age_secs(now.unix_secs);
    let mut rows: Vec<MachineRow> = view
        .machines()
        .map(|machine| row(daemon, &view, &traffic, machine, network.unix_secs()))
        .collect();
    rows.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(Payload::MachineList(MachineList {
        view_age_secs,
        stale: Network::is_stale(view_age_secs),
        rows,
    })
    .into())
}

pub(crate) async fn traffic(daemon: &Daemon, now: Instant) -> Result<Traffic, Failure> {
    daemon.overlay.traffic(now).await.map_err(internal)
}

pub(crate) async fn inspect(daemon: &Daemon, wanted: &str) -> Outcome {
    let network = daemon.running_network()?;
    let now = clock::now();
    let traffic = traffic(daemon, now.instant).await?;
    let view = network.view();
    let machine = view.select(wanted).map_err(not_selected)?;
    let observed = view.observed(machine.id);
    let peer = peer(&traffic, machine);
    Ok(Payload::MachineInspect(Box::new(MachineInspect {
        machine: row(daemon, &view, &traffic, machine, network.unix_secs()),
        desired: document(machine)?,
        observed: observed.map(|(record, _)| document(record)).transpose()?,
        endpoint: peer.and_then(|peer| peer.endpoint),
        rx_bytes: peer.map(|peer| peer.rx_bytes),
        tx_bytes: peer.map(|peer| peer.tx_bytes),
    }))
    .into())
}

fn row(
    daemon: &Daemon,
    view: &View,
    traffic: &Traffic,
    machine: &MachineRecord,
    unix_secs: u64,
) -> MachineRow {
    let observed = view.observed(machine.id);
    let handshake_age_secs = peer(traffic, machine).and_then(|peer| peer.handshake_age_secs);
    let is_own = machine.id == daemon.identity.machine_id;
    MachineRow {
        id: machine.id,
        name: machine.name.clone(),
        lifecycle: machine.posture(),
        authority: machine.authority,
        region: machine.region.clone(),
        region_role: machine.region_role,
        availability_zone: machine.availability_zone.clone(),
        overlay_ip: machine.overlay_ip,
        overlay_ip6: machine.overlay_ip6,
        subnet: machine.subnet,
        created_at: machine.created_at,
        version: observed.map(|(record, _)| record.software_version.clone()),
        workloads: u32::try_from(machine.workloads.len()).unwrap_or(u32::MAX),
        reachable: is_own || is_session(handshake_age_secs),
        handshake_age_secs,
        observed_age_secs: observed.map(|(_, at)| unix_secs.saturating_sub(at)),
        clock_offset_secs: view.clock_offset_secs(machine.id),
        labels: machine.labels.clone(),
    }
}

pub(crate) fn peer<'a>(traffic: &'a Traffic, machine: &MachineRecord) -> Option<&'a PeerTraffic> {
    traffic.get(&PublicKey::from_base64(&machine.wireguard_key).ok()?)
}

pub(crate) fn document(record: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(record).map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

/// A machine that is not to be found, as a refusal.
pub(crate) fn not_selected(error: SelectError) -> Failure {
    let code = match error {
        SelectError::NotFound(_) => Code::MachineNotFound,
        SelectError::Ambiguous { .. } => Code::MachineAmbiguous,
    };
    Failure::new(code, error.to_string()).hint("ployzctl machine ls")
}
