//! A network, as its founder is told of it.

use ployz_api::{InviteRequest, MeshInit, Outcome, Payload, Success, TTL_SECS_DEFAULT};

use crate::host::membership::Membership;
use crate::machine::Machine;
use crate::requests::invites;

/// What to say of a network that was started for the first time.
pub(super) async fn started(here: &Machine, membership: &Membership) -> Outcome {
    let request = InviteRequest::lasting(TTL_SECS_DEFAULT);
    // The network is there without it; `invite create` makes another.
    let invite = invites::make(here, request).await.ok();
    Ok(Success {
        message: format!("network {} is running", membership.network),
        payload: Some(described(here, membership, invite)),
    })
}

/// A network, for whoever has made or started it.
pub(super) fn described(
    here: &Machine,
    membership: &Membership,
    invite: Option<ployz_api::Invite>,
) -> Payload {
    Payload::MeshInit(Box::new(MeshInit {
        network: membership.network.clone(),
        network_id: membership.network_id,
        id: here.identity.machine_id,
        name: membership.name.clone(),
        overlay_ip: membership.overlay_ip,
        overlay_ip6: membership.overlay_ip6,
        subnet: membership.subnet,
        invite,
    }))
}
