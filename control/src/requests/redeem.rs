//! Letting a machine in: the coordinator's side of joining.
//!
//! The invite is consumed first, by compare-and-set, so that exactly one machine gets further. What comes after can be
//! done again by that machine: its name and subnet are claimed under its id, and its record is made once.

use std::time::Duration;

use ployz_api::{
    Authority as Held, Code, Failure, Lifecycle, MachineId, Name, Outcome, Payload, RedeemRequest,
    Redeemed, RegionRole,
};
use ployz_core::{
    Addresses, InviteRecord, InviteRefusal, MachineRecord, RECORD_VERSION, Redemption,
};
use ployz_engine::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::internal;
use crate::authority::PublicPoint;
use crate::clock;
use crate::daemon::Daemon;
use crate::network::{Network, Storage};
use crate::operations::Work;
use crate::store::{INVITES, LEASES, MACHINES, Revised, Store};

/// What a wrong secret costs its sender. With the connections that a server takes at a time, that is 1,200 guesses a
/// second at 2^128 secrets.
const WRONG_SECRET_WAIT: Duration = Duration::from_millis(300);
/// A name that is taken gets a number; nobody has so many machines.
const NAMESAKES_MAX: u32 = 1_000;

/// What there is to do when it was not let in to the end; nothing has to be taken back.
const JOIN_AGAIN: &str = "ployzctl machine invite import, on that machine, with the same token";

/// Who has a subnet or a name, in bucket `leases`.
#[derive(Debug, Serialize, Deserialize)]
struct Lease {
    version: u32,
    machine: MachineId,
}

pub(super) async fn redeem(daemon: &Daemon, request: RedeemRequest) -> Outcome {
    let network = daemon.running_network()?;
    let storage = network.coordinator()?;
    let certificate_key = well_formed(&request)?;
    let name = consume(&network, &request).await?;
    let record = match own_record(&network.store, request.machine_id).await? {
        Some(record) if record.wireguard_key == request.wireguard_key => record,
        Some(_) => {
            let message = "a machine of this id is here with another key";
            return Err(Failure::new(Code::Conflict, message));
        }
        None => {
            let (target, store) = (request.machine_id.to_string(), &network.store);
            let mut work = Work::begin(daemon, store, "machine-join", target, JOIN_AGAIN);
            let admitted = admit(&network, request, name, &mut work).await;
            work.end(admitted.as_ref().err()).await;
            admitted?
        }
    };
    tracing::info!(id = %record.id, name = %record.name, "a machine has joined");
    let answer = answer(&network, storage, &record, &certificate_key).await;
    Ok(Payload::Redeemed(Box::new(answer?)).into())
}

/// Everything that does not need the store to be judged.
fn well_formed(request: &RedeemRequest) -> Result<PublicPoint, Failure> {
    let refused =
        |what: &str| Failure::new(Code::InvalidArgument, format!("{what} is no such key"));
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
async fn consume(network: &Network, request: &RedeemRequest) -> Result<Option<Name>, Failure> {
    let key = request.invite_id.to_string();
    loop {
        let found: Option<Revised<InviteRecord>> = network.store.get(INVITES, &key).await?;
        let now = clock::now().unix_secs;
        let redemption = found.map_or(Err(InviteRefusal::Invalid), |found| {
            let redemption = found
                .value
                .redeem(request.machine_id, request.secret.expose(), now);
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
        let name = found.value.name().cloned();
        let Redemption::Consume(consumed) = redemption else {
            return Ok(name);
        };
        if network
            .store
            .update(INVITES, &key, &consumed, found.revision)
            .await?
        {
            return Ok(name);
        }
        // Another was faster: the next reading says who. An invite changes at most twice, so this ends.
    }
}

async fn own_record(store: &Store, id: MachineId) -> Result<Option<MachineRecord>, Failure> {
    let found: Option<Revised<MachineRecord>> = store.get(MACHINES, &id.to_string()).await?;
    Ok(found.map(|found| found.value))
}

/// Gives a new machine its name and addresses, and makes its record.
async fn admit(
    network: &Network,
    request: RedeemRequest,
    name: Option<Name>,
    work: &mut Work,
) -> Result<MachineRecord, Failure> {
    let id = request.machine_id;
    work.stage("name").await;
    let name = claim_name(&network.store, name.as_ref().unwrap_or(&request.name), id).await?;
    work.stage("addresses").await;
    let addresses = claim_subnet(network, id).await?;
    work.stage("record").await;
    let record = MachineRecord {
        version: RECORD_VERSION,
        id,
        name,
        lifecycle: Lifecycle::Active,
        authority: Held::Compute,
        region: request.region,
        region_role: RegionRole::Compute,
        availability_zone: None,
        overlay_ip: addresses.overlay_ip,
        overlay_ip6: addresses.overlay_ip6,
        subnet: Some(addresses.subnet),
        wireguard_key: request.wireguard_key,
        nkey: request.nkey,
        endpoints: request.endpoints,
        store_port: None,
        created_at: clock::now().unix_secs,
        labels: std::collections::BTreeMap::new(),
        unknown: Map::new(),
    };
    if network
        .store
        .create(MACHINES, &id.to_string(), &record)
        .await?
    {
        return Ok(record);
    }
    let message = "this machine is being let in by another request";
    Err(Failure::new(Code::Busy, message).hint("run the same command again"))
}

async fn claim_name(store: &Store, wanted: &Name, id: MachineId) -> Result<Name, Failure> {
    for number in 1..=NAMESAKES_MAX {
        let name = match number {
            1 => wanted.clone(),
            _ => Name::nearest(&format!("{:.58}-{number}", wanted.as_str())),
        };
        if claim(store, &format!("name.{name}"), id).await? {
            return Ok(name);
        }
    }
    Err(Failure::new(
        Code::Conflict,
        format!("too many machines are called {wanted}"),
    ))
}

async fn claim_subnet(network: &Network, id: MachineId) -> Result<Addresses, Failure> {
    let membership = &network.membership;
    let full = || {
        let message = format!("{} has no subnet left", membership.cluster_cidr);
        Failure::new(Code::Conflict, message)
    };
    let plan = membership.addresses.ok_or_else(full)?;
    for index in 0..plan.capacity() {
        if claim(&network.store, &format!("subnet.{index}"), id).await? {
            return plan
                .addresses(membership.network_id, index)
                .ok_or_else(full);
        }
    }
    Err(full())
}

/// Takes something that only one machine can have; `true` as well if it has it already.
pub(super) async fn claim(store: &Store, key: &str, machine: MachineId) -> Result<bool, Failure> {
    let lease = Lease {
        version: RECORD_VERSION,
        machine,
    };
    if store.create(LEASES, key, &lease).await? {
        return Ok(true);
    }
    let found: Option<Revised<Lease>> = store.get(LEASES, key).await?;
    Ok(found.is_some_and(|found| found.value.machine == machine))
}

async fn answer(
    network: &Network,
    storage: &Storage,
    record: &MachineRecord,
    certificate_key: &PublicPoint,
) -> Result<Redeemed, Failure> {
    let certificate_pem = storage
        .authority
        .certify_machine(
            &record.id.to_string(),
            &[record.overlay_ip.into(), record.overlay_ip6.into()],
            certificate_key,
        )
        .map_err(internal)?;
    let membership = &network.membership;
    Ok(Redeemed {
        network_id: membership.network_id,
        network: membership.network.clone(),
        cluster_cidr: membership.cluster_cidr,
        ca_pem: membership.ca_pem.clone(),
        certificate_pem,
        store: membership.store.clone(),
        machines: network.store.list(MACHINES).await?,
    })
}
