//! Seeing machines. Answered from the view: it takes no store to look.

use ployz_api::{
    Code, Failure, MachineId, MachineInspect, MachineList, MachineRow, Outcome, Payload,
};
use ployz_core::{MachineRecord, View};
use serde::Serialize;
use serde_json::Value;

use crate::host::clock;
use crate::machine::{Machine, Traffic, peer};
use crate::network::{Network, is_session};

pub(super) async fn list(here: &Machine) -> Outcome {
    let network = here.running_network()?;
    let now = clock::now();
    let traffic = here.traffic(now.instant).await?;
    let view = network.view();
    let view_age_secs = view.age_secs(now.unix_secs);
    let mut rows: Vec<MachineRow> = view
        .machines()
        .map(|machine| row(here, &view, &traffic, machine, network.unix_secs()))
        .collect();
    rows.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(Payload::MachineList(MachineList {
        view_age_secs,
        stale: Network::is_stale(view_age_secs),
        rows,
    })
    .into())
}

pub(super) async fn inspect(here: &Machine, wanted: &str) -> Outcome {
    let network = here.running_network()?;
    let now = clock::now();
    let traffic = here.traffic(now.instant).await?;
    let view = network.view();
    let machine = view.select(wanted)?;
    let observed = view.observed(machine.id);
    let peer = peer(&traffic, machine);
    Ok(Payload::MachineInspect(Box::new(MachineInspect {
        machine: row(here, &view, &traffic, machine, network.unix_secs()),
        desired: document(machine)?,
        observed: observed.map(|(record, _)| document(record)).transpose()?,
        endpoint: peer.and_then(|peer| peer.endpoint),
        rx_bytes: peer.map(|peer| peer.rx_bytes),
        tx_bytes: peer.map(|peer| peer.tx_bytes),
    }))
    .into())
}

fn row(
    here: &Machine,
    view: &View,
    traffic: &Traffic,
    machine: &MachineRecord,
    unix_secs: u64,
) -> MachineRow {
    let observed = view.observed(machine.id);
    let handshake_age_secs = peer(traffic, machine).and_then(|peer| peer.handshake_age_secs);
    let is_own = machine.id == here.identity.machine_id;
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

pub(super) fn document(record: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(record).map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

/// The machine that an operator names: by its id, its name, or the unique beginning of either.
pub(super) fn selected(here: &Machine, wanted: &str) -> Result<MachineId, Failure> {
    let network = here.running_network()?;
    let view = network.view();
    Ok(view.select(wanted)?.id)
}
