//! Letting a machine in: the coordinator's side of joining.
//!
//! The invite is consumed first, by compare-and-set, so that exactly one machine gets further. What comes after can be
//! done again by that machine: its name and subnet are claimed under its id, and its record is made once.

use std::collections::BTreeMap;
use std::time::Duration;

use ployz_api::{
    Authority as Held, Code, Failure, MachineId, Name, Outcome, Payload, RedeemRequest, Redeemed,
    RegionRole, fingerprint,
};
use ployz_core::{
    InviteRecord, InviteRefusal, MachineRecord, RECORD_VERSION, Redeemer, Redemption,
};
use ployz_engine::PublicKey;
use serde_json::Map;

use crate::host::ca::PublicPoint;
use crate::host::error::HostError;
use crate::host::possession;
use crate::machine::Machine;
use crate::network::{Network, Storage};
use crate::services::leases::{claim_name, claim_subnet};
use crate::services::renewal::certify;
use crate::store::operations::OperationLog;
use crate::store::{INVITES, MACHINES, Revised, Slot};

/// What a wrong secret costs its sender. With one request a stranger and 128 strangers at a time, that is 430 guesses a
/// second at 2^128 secrets.
const WRONG_SECRET_WAIT: Duration = Duration::from_millis(300);

/// What there is to do when it was not let in to the end; nothing has to be taken back.
const JOIN_AGAIN: &str =
    "ployzctl machine invite import --token-stdin, on that machine, with the same token";

pub(crate) async fn redeem(here: &Machine, request: RedeemRequest) -> Outcome {
    let network = here.running_network()?;
    let storage = network.require_storage()?;
    let certificate_key = well_formed(&request)?;
    let keys = Keys::of(&request, &certificate_key);
    let key = request.machine_id.to_string();
    let now = network.store.unix_secs().await?;
    let slot: Slot<MachineRecord> = network.store.slot(MACHINES, &key).await?;
    let proof_key = storage.authority.proof_key(request.invite_id);
    let id = network.membership.network_id;
    let has_proven_keys = possession::is_proven(&request, id, &proof_key);
    let redeemer = Redeemer {
        machine: request.machine_id,
        keys: &keys.digest(),
        has_proven_keys,
        // One that joined and did not hear the answer may come with another invite.
        claims_member: matches!(&slot, Slot::Record(found)
            if !(has_proven_keys && keys.are_those_of(&found.value))),
        removed: match &slot {
            Slot::Deleted { revision, .. } => Some(*revision),
            Slot::Nothing | Slot::Record(_) => None,
        },
    };
    let invite = consume(&network, &request, &redeemer, now).await?;
    let record = match slot.record().map(|found| found.value) {
        Some(record) if keys.are_those_of(&record) => record,
        Some(_) => {
            let message = "the network has a machine of this id with other keys";
            return Err(Failure::new(Code::Conflict, message)
                .hint("restore identity.json, or join with a new data directory"));
        }
        None => {
            refuse_taken(&network, &keys, request.machine_id).await?;
            let (target, store) = (request.machine_id.to_string(), &network.store);
            let mut work = OperationLog::begin(
                here.identity.machine_id,
                store,
                "machine-join",
                target,
                JOIN_AGAIN,
            );
            let admitted = admit(&network, request, keys, &invite, now, &mut work).await;
            work.end(admitted.as_ref().err()).await;
            admitted?
        }
    };
    tracing::info!(id = %record.id, name = %record.name, "machine joined");
    let answer = answer(&network, storage, &record, now, &certificate_key).await;
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

/// The public halves of a machine's keys.
struct Keys {
    wireguard: String,
    nkey: String,
    certificate: String,
}

impl Keys {
    fn of(request: &RedeemRequest, certificate_key: &PublicPoint) -> Self {
        Self {
            wireguard: request.wireguard_key.clone(),
            nkey: request.nkey.clone(),
            certificate: certificate_key.fingerprint(),
        }
    }

    /// SHA-256 of all three, in hexadecimal digits. None of them has a blank in it.
    fn digest(&self) -> String {
        let all = [&*self.wireguard, &self.nkey, &self.certificate].join(" ");
        fingerprint(all.as_bytes())
    }

    fn are_those_of(&self, record: &MachineRecord) -> bool {
        let certificate = record.certificate_key.as_ref();
        record.wireguard_key == self.wireguard
            && record.nkey == self.nkey
            && certificate.is_none_or(|it| *it == self.certificate)
    }

    fn has_one_of(&self, record: &MachineRecord) -> bool {
        record.wireguard_key == self.wireguard
            || record.nkey == self.nkey
            || record.certificate_key.as_ref() == Some(&self.certificate)
    }
}

/// Two machines with one key would be one peer, or one user of the store.
async fn refuse_taken(network: &Network, keys: &Keys, id: MachineId) -> Result<(), Failure> {
    let machines: Vec<MachineRecord> = network.store.list(MACHINES).await?;
    let others = machines.iter().filter(|it| it.id != id);
    let Some(other) = others.into_iter().find(|it| keys.has_one_of(it)) else {
        return Ok(());
    };
    let message = format!("machine {} has one of these keys", other.id);
    Err(Failure::new(Code::Conflict, message)
        .hint("join with a new data directory: an identity must not be copied"))
}

/// Exactly one machine gets past this, as often as it likes.
async fn consume(
    network: &Network,
    request: &RedeemRequest,
    redeemer: &Redeemer<'_>,
    now: u64,
) -> Result<InviteRecord, Failure> {
    let key = request.invite_id.to_string();
    loop {
        let found: Option<Revised<InviteRecord>> = network.store.get(INVITES, &key).await?;
        let redemption = found.map_or(Err(InviteRefusal::Invalid), |found| {
            let secret = request.secret.expose();
            let redemption = found.value.redeem(redeemer, secret, now);
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
    keys: Keys,
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
        wireguard_key: keys.wireguard,
        nkey: keys.nkey,
        certificate_key: Some(keys.certificate),
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
    now: u64,
    certificate_key: &PublicPoint,
) -> Result<Redeemed, Failure> {
    let signed = certify(&storage.authority, record, now, certificate_key)?;
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
        certificate_pem: signed.certificate_pem,
        store_certificate_pem: Some(signed.store_certificate_pem),
        store: membership.store.clone(),
        store_epoch: membership.store_epoch,
        machines,
    })
}
