//! Letting a machine in: the coordinator's side of joining.
//!
//! The invite is consumed first, by compare-and-set, so that exactly one machine gets further. What comes after can be
//! done again by that machine: its name and subnet are claimed under its id, and its record is made once.

use std::collections::BTreeMap;
use std::time::Duration;

use ployz_api::{
    Authority as Held, Code, Failure, Name, Outcome, Payload, RedeemRequest, Redeemed, RegionRole,
};
use ployz_core::{InviteRecord, InviteRefusal, MachineRecord, RECORD_VERSION, Redemption};
use ployz_engine::PublicKey;
use serde_json::Map;

use crate::host::ca::PublicPoint;
use crate::host::error::HostError;
use crate::machine::Machine;
use crate::network::{Network, Storage};
use crate::services::leases::{claim_name, claim_subnet};
use crate::store::operations::OperationLog;
use crate::store::{INVITES, MACHINES, Revised, Slot};

/// What a wrong secret costs its sender. With one request a stranger and 128 strangers at a time, that is 430 guesses a
/// second at 2^128 secrets.
const WRONG_SECRET_WAIT: Duration = Duration::from_millis(300);

/// What there is to do when it was not let in to the end; nothing has to be taken back.
const JOIN_AGAIN: &str = "ployzctl machine invite import, on that machine, with the same token";

pub(crate) async fn redeem(here: &Machine, request: RedeemRequest) -> Outcome {
    let network = here.running_network()?;
    let storage = network.require_storage()?;
    let certificate_key = well_formed(&request)?;
    let key = request.machine_id.to_string();
    let now = network.store.unix_secs().await?;
    let slot: Slot<MachineRecord> = network.store.slot(MACHINES, &key).await?;
    let invite = consume(&network, &request, &slot, now).await?;
    let record = match slot.record().map(|found| found.value) {
        Some(record) if record.wireguard_key == request.wireguard_key => record,
        Some(_) => {
            let message = "the network has a machine of this id with another WireGuard key";
            return Err(Failure::new(Code::Conflict, message)
                .hint("restore identity.json, or join with a new data directory"));
        }
        None => {
            let (target, store) = (request.machine_id.to_string(), &network.store);
            let mut work = OperationLog::begin(
                here.identity.machine_id,
                store,
                "machine-join",
                target,
                JOIN_AGAIN,
            );
            let admitted = admit(&network, request, &invite, now, &mut work).await;
            work.end(admitted.as_ref().err()).await;
            admitted?
        }
    };
    tracing::info!(id = %record.id, name = %record.name, "machine joined");
    let answer = answer(&network, storage, &record, &certificate_key).await;
    Ok(Payload::Redeemed(Box::new(answer?)).into())
}

/// Everything that does not need the store to be judged.
fn well_formed(request: &RedeemRequest) -> Result<PublicPoint, Failure> {
    let refused =
        |what: &str| Failure::new(Code::InvalidArgument, format!("{what} is not a valid key"));
    let wireguard = PublicKey::from_base64(&request.wireguard_key);
    if !wireguard.is_ok_and(|key| !key.is_low_order()) {
        return Err(refused("wireguard_key"));
    }
    nkeys::KeyPair::from_public_key(&request.nkey).map_err(|_| refused("nkey"))?;
    if !request.nkey.starts_with('U') {
        return Err(refused("nkey"));
    }
    PublicPoint::from_hex(&request.certificate_key).ok_or_else(|| refused("certificate_key"))
}

/// Exactly one machine gets past this, as often as it likes.
async fn consume(
    network: &Network,
    request: &RedeemRequest,
    slot: &Slot<MachineRecord>,
    now: u64,
) -> Result<InviteRecord, Failure> {
    let removed = match slot {
        Slot::Deleted { revision, .. } => Some(*revision),
        Slot::Nothing | Slot::Record(_) => None,
    };
    let key = request.invite_id.to_string();
    loop {
        let found: Option<Revised<InviteRecord>> = network.store.get(INVITES, &key).await?;
        let redemption = found.map_or(Err(InviteRefusal::Invalid), |found| {
            let secret = request.secret.expose();
            let redemption = found.value.redeem(request.machine_id, secret, removed, now);
            redemption.map(|redemption| (redemption, found))
        });
        let (redemption, found) = match redemption {
            Ok(both) => both,
            Err(refusal) => {
                if refusal == InviteRefusal::Invalid {
                    tokio::time::sleep(WRONG_SECRET_WAIT).await;
                }
                return Err(refusal.into());
            }
        };
        let Redemption::Consume(consumed) = redemption else {
            return Ok(found.value);
        };
        if network
            .store
            .update(INVITES, &key, &*consumed, found.revision)
            .await?
        {
            return Ok(*consumed);
        }
        // Another was faster: the next reading says who. An invite changes at most twice, so this ends.
    }
}

/// Gives a new machine its name and addresses, and makes its record.
async fn admit(
    network: &Network,
    request: RedeemRequest,
    invite: &InviteRecord,
    now: u64,
    work: &mut OperationLog,
) -> Result<MachineRecord, Failure> {
    let (id, store) = (request.machine_id, &network.store);
    work.stage("name").await;
    let name = invite.name().unwrap_or(&request.name);
    let name = claim_name(store, name, id, now).await?;
    work.stage("addresses").await;
    let addresses = claim_subnet(network, id, now).await?;
    work.stage("record").await;
    let record = MachineRecord {
        version: RECORD_VERSION,
        id,
        name,
        lifecycle: invite.lifecycle(),
        authority: Held::Compute,
        region: invite.region().map_or(request.region, Name::to_string),
        region_role: RegionRole::Compute,
        availability_zone: None,
        overlay_ip: addresses.overlay_ip,
        overlay_ip6: addresses.overlay_ip6,
        subnet: Some(addresses.subnet),
        wireguard_key: request.wireguard_key,
        nkey: request.nkey,
        endpoints: request.endpoints,
        store_port: None,
        created_at: now,
        labels: invite.labels(),
        workloads: BTreeMap::new(),
        unknown: Map::new(),
    };
    if network
        .store
        .create(MACHINES, &id.to_string(), &record)
        .await?
    {
        return Ok(record);
    }
    let message = "another request is admitting this machine";
    Err(Failure::new(Code::Busy, message).hint("run the same command again"))
}

async fn answer(
    network: &Network,
    storage: &Storage,
    record: &MachineRecord,
    certificate_key: &PublicPoint,
) -> Result<Redeemed, Failure> {
    let certificate_pem = storage.authority.certify_machine(
        &record.id.to_string(),
        &[record.overlay_ip.into(), record.overlay_ip6.into()],
        certificate_key,
    )?;
    let membership = &network.membership;
    let mut machines: Vec<MachineRecord> = network.store.list(MACHINES).await?;
    // Any server answers, and may not have heard of it yet.
    if !machines.iter().any(|machine| machine.id == record.id) {
        machines.push(record.clone());
    }
    let machines: Result<_, _> = machines.iter().map(serde_json::to_value).collect();
    let machines = machines.map_err(HostError::render("the machines' records"))?;
    Ok(Redeemed {
        network_id: membership.network_id,
        network: membership.network.clone(),
        cluster_cidr: membership.cluster_cidr,
        ca_pem: membership.ca_pem.clone(),
        certificate_pem,
        store: membership.store.clone(),
        store_epoch: membership.store_epoch,
        machines,
    })
}
