//! Making, listing and taking back invites.

use ployz_api::{
    Authority, Code, Coordinators, Failure, Invite, InviteId, InviteList, InviteRequest,
    InviteStatus, MachineId, Outcome, Payload, SECRET_LEN, Secret, Success, TTL_SECS_MAX, Token,
    fingerprint,
};
use ployz_core::{InviteRecord, secret_digest};
use zeroize::Zeroizing;

use crate::host::clock;
use crate::host::identity::hex;
use crate::host::local_addresses;
use crate::host::tls;
use crate::machine::Machine;
use crate::network::Network;
use crate::store::{INVITES, Revised};

pub(super) async fn create(here: &Machine, request: InviteRequest) -> Outcome {
    Ok(Payload::Invite(make(here, request).await?).into())
}

/// Makes an invite. Its secret is in the answer and nowhere else.
pub(super) async fn make(here: &Machine, request: InviteRequest) -> Result<Invite, Failure> {
    let network = here.running_network()?;
    if !(1..=TTL_SECS_MAX).contains(&request.ttl_secs) {
        let message = format!(
            "an invite lasts 1 to {TTL_SECS_MAX} seconds, not {}",
            request.ttl_secs
        );
        return Err(Failure::new(Code::InvalidArgument, message));
    }
    let (unix_ms, random) = clock::id_parts();
    let invite_id = InviteId::new(unix_ms, random);
    let secret = Secret::new(hex(&*Zeroizing::new(rand::random::<[u8; SECRET_LEN]>())));
    let created_at = network.store.unix_secs().await?;
    let digest = secret_digest(secret.expose());
    let record = InviteRecord::new(invite_id, digest, created_at, request);
    let authority = tls::certificate(&network.membership.ca_pem)?;
    let storage = network.require_storage()?;
    let coordinators = Coordinators {
        machines: holders(&network),
        proof_key: storage
            .authority
            .proof_key(invite_id)
            .public_key()
            .to_string(),
        created_at,
    };
    let token = Token {
        network_id: network.membership.network_id,
        ca_fingerprint: fingerprint(&authority),
        endpoints: local_addresses::endpoints(here.config.listen, &here.config.interface),
        invite_id,
        secret,
        expires_at: record.expires_at(),
        coordinators: Some(coordinators),
    };
    let created = network
        .store
        .create(INVITES, &invite_id.to_string(), &record)
        .await?;
    if !created {
        return Err(Failure::new(Code::Conflict, "an invite of this id exists"));
    }
    tracing::info!(%invite_id, expires_at = token.expires_at, "invite created");
    Ok(Invite {
        invite_id,
        expires_at: token.expires_at,
        token: token.encode(),
    })
}

/// The machines that hold the store, this one among them whatever the view has heard.
fn holders(network: &Network) -> Vec<MachineId> {
    let view = network.view();
    let others = view
        .machines()
        .filter(|it| it.authority == Authority::Storage && it.id != network.own())
        .map(|it| it.id);
    std::iter::once(network.own()).chain(others).collect()
}

pub(super) async fn list(here: &Machine, all: bool) -> Outcome {
    let network = here.running_network()?;
    let records: Vec<InviteRecord> = network.store.list(INVITES).await?;
    let now = network.store.unix_secs().await?;
    let mut invites: Vec<_> = records
        .iter()
        .map(|record| record.row(now))
        .filter(|row| all || row.status == InviteStatus::Active)
        .collect();
    invites.sort_by_key(|row| row.invite_id);
    Ok(Payload::InviteList(InviteList { invites }).into())
}

pub(super) async fn revoke(here: &Machine, invite_id: InviteId) -> Outcome {
    let network = here.running_network()?;
    let key = invite_id.to_string();
    let found: Option<Revised<InviteRecord>> = network.store.get(INVITES, &key).await?;
    let Some(Revised { value, revision }) = found else {
        let message = format!("there is no invite {invite_id}");
        return Err(Failure::new(Code::InviteInvalid, message).hint("ployzctl machine invite list"));
    };
    let now = network.store.unix_secs().await?;
    let message = match value.revoke(now)? {
        None => format!("invite {invite_id} is revoked already"),
        Some(revoked) => {
            if !network
                .store
                .update(INVITES, &key, &revoked, revision)
                .await?
            {
                let message = "another request has used or revoked the invite meanwhile";
                return Err(Failure::new(Code::Conflict, message)
                    .hint("ployzctl machine invite list --all"));
            }
            tracing::info!(%invite_id, "invite revoked");
            format!("invite {invite_id} is revoked")
        }
    };
    Ok(Success {
        message,
        payload: None,
    })
}
