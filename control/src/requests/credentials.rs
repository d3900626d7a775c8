//! Certifying people, listing who was certified, and taking it back.

use std::net::SocketAddr;

use ployz_api::{
    Authority, Code, Context, Credential, CredentialId, CredentialList, CredentialRequest, Failure,
    NewCredential, Outcome, Payload, Role, Secret, Success,
};
use ployz_core::{CredentialRecord, View};
use rcgen::KeyPair;

use crate::host::clock;
use crate::host::error::HostError;
use crate::host::local_addresses;
use crate::machine::Machine;
use crate::network::Network;
use crate::store::{CREDENTIALS, Revised};

/// Ten years: whoever wants longer wants for ever, which is what is had without a time.
const TTL_SECS_MAX: u64 = 10 * 365 * 24 * 3600;
/// Every daemon reads all records every 20 s; these are some 200 KiB.
const RECORDS_MAX: usize = 1_000;
/// With 2 s for each that is gone, as much as anybody waits for.
const ENDPOINTS_MAX: usize = 8;

pub(super) async fn create(here: &Machine, request: CredentialRequest) -> Outcome {
    let network = here.running_network()?;
    let storage = network.require_storage()?;
    check(&request)?;
    if network
        .store
        .list::<CredentialRecord>(CREDENTIALS)
        .await?
        .len()
        >= RECORDS_MAX
    {
        let message = format!("the network has {RECORDS_MAX} credentials, the maximum");
        return Err(Failure::new(Code::Conflict, message));
    }
    let (unix_ms, random) = clock::id_parts();
    let id = CredentialId::new(unix_ms, random);
    let now = clock::now().unix_secs;
    let record = CredentialRecord::new(id, request.role, request.name, now, request.ttl_secs);
    let key = KeyPair::generate().map_err(HostError::from)?;
    let certificate_pem =
        storage
            .authority
            .certify_person(&id.to_string(), request.role, record.expires_at, &key)?;
    // Before anybody has the certificate: what is not in the list cannot be revoked.
    if !network
        .store
        .create(CREDENTIALS, &id.to_string(), &record)
        .await?
    {
        return Err(Failure::new(
            Code::Conflict,
            "a credential of this id exists",
        ));
    }
    tracing::info!(%id, role = record.role.name(), "credential created");
    let membership = &network.membership;
    let credential = Credential {
        endpoints: endpoints(here, &network.view()),
        network: membership.network_id.to_string(),
        ca_pem: membership.ca_pem.clone(),
        certificate_pem,
        key_pem: Secret::new(key.serialize_pem()),
    };
    let context = Context {
        name: membership.network.clone(),
        credential,
    };
    Ok(Payload::Credential(Box::new(NewCredential {
        credential_id: id,
        role: record.role,
        expires_at: record.expires_at,
        context,
    }))
    .into())
}

fn check(request: &CredentialRequest) -> Result<(), Failure> {
    let refused = |message: String| Err(Failure::new(Code::InvalidArgument, message));
    match request.role {
        Role::Admin | Role::Operator | Role::Reader => {}
        Role::Machine | Role::Stranger => {
            return refused(format!(
                "a credential has role admin, operator or reader, not {}",
                request.role.name()
            ));
        }
    }
    match request.ttl_secs {
        Some(ttl) if !(1..=TTL_SECS_MAX).contains(&ttl) => refused(format!(
            "a credential lasts 1 to {TTL_SECS_MAX} seconds, not {ttl}; without --ttl it does not expire"
        )),
        Some(_) | None => Ok(()),
    }
}

/// Where the network is reached: this machine, then one endpoint of every other, those that hold the store first.
fn endpoints(here: &Machine, view: &View) -> Vec<SocketAddr> {
    let own = local_addresses::endpoints(here.config.listen, &here.config.interface);
    let mut others: Vec<_> = view
        .machines()
        .filter(|machine| machine.id != here.identity.machine_id)
        .collect();
    others.sort_by_key(|machine| (machine.authority != Authority::Storage, machine.id));
    let first = |id| view.observed(id)?.0.management.first().copied();
    own.into_iter()
        .take(1)
        .chain(others.into_iter().filter_map(|machine| first(machine.id)))
        .take(ENDPOINTS_MAX)
        .collect()
}

pub(super) async fn list(here: &Machine) -> Outcome {
    let network = here.running_network()?;
    let records: Vec<CredentialRecord> = network.store.list(CREDENTIALS).await?;
    let now = clock::now().unix_secs;
    let mut credentials: Vec<_> = records.iter().map(|record| record.row(now)).collect();
    credentials.sort_by_key(|row| row.credential_id);
    Ok(Payload::CredentialList(CredentialList { credentials }).into())
}

pub(super) async fn revoke(here: &Machine, id: CredentialId) -> Outcome {
    let network = here.running_network()?;
    let message = if revoke_record(&network, id).await? {
        tracing::info!(%id, "credential revoked");
        format!("credential {id} is revoked")
    } else {
        format!("credential {id} is revoked already")
    };
    Ok(Success {
        message,
        payload: None,
    })
}

/// Whether it was good until now.
async fn revoke_record(network: &Network, id: CredentialId) -> Result<bool, Failure> {
    let key = id.to_string();
    let found: Option<Revised<CredentialRecord>> = network.store.get(CREDENTIALS, &key).await?;
    let Some(Revised { value, revision }) = found else {
        let message = format!("there is no credential {id}");
        return Err(Failure::new(Code::InvalidArgument, message).hint("ployzctl credential list"));
    };
    let Some(revoked) = value.revoke(clock::now().unix_secs) else {
        return Ok(false);
    };
    // A record is written twice in its life: whoever was faster has revoked it.
    let store = &network.store;
    Ok(store.update(CREDENTIALS, &key, &revoked, revision).await?)
}
