//! Drawing a network up here, and founding it.

use std::rc::Rc;

use anyhow::Context as _;
use ployz_api::{
    Code, Failure, InviteRequest, MeshInit, MeshInitRequest, NetworkId, NetworkState, Outcome,
    Payload, Success, TTL_SECS_DEFAULT,
};
use ployz_core::{AddressPlan, CLUSTER_CIDR_DEFAULT, SUBNET_PREFIX_LEN_DEFAULT};

use crate::daemon::Daemon;
use crate::host::ca::Authority;
use crate::host::clock;
use crate::host::failure::internal;
use crate::host::local_addresses;
use crate::host::membership::{AUTHORITY_FILE, FILE, Membership};
use crate::overlay::store_address;
use crate::requests::{invites, mesh};
use crate::services::founding::found;

/// Founds a network: draws it up, starts it, and makes the first invite.
pub(crate) async fn init(daemon: &Rc<Daemon>, request: MeshInitRequest) -> Outcome {
    let known = daemon.membership().map_err(internal)?;
    if let Some(membership) = known {
        same_name(&membership, &request)?;
        return match membership.state {
            NetworkState::Running => Ok(Success {
                message: format!("network {} is running here already", membership.network),
                payload: Some(described(daemon, &membership, None)),
            }),
            NetworkState::Created | NetworkState::Stopped => mesh::start(daemon).await,
        };
    }
    let entering = daemon.begin_entering()?;
    let (membership, authority) = plan(daemon, request)?;
    save(daemon, &membership, &authority).map_err(internal)?;
    if let Err(failure) = found(daemon, membership.clone(), authority).await {
        forget(daemon).map_err(internal)?;
        return Err(failure);
    }
    drop(entering);
    started(daemon, &membership).await
}

/// Draws a network up, and starts nothing.
pub(crate) fn create(daemon: &Daemon, request: MeshInitRequest) -> Outcome {
    let known = daemon.membership().map_err(internal)?;
    let message = if let Some(membership) = &known {
        same_name(membership, &request)?;
        format!(
            "network {} is {} here already",
            membership.network, membership.state
        )
    } else {
        format!("network {} is created: ployzctl mesh start", request.name)
    };
    let membership = match known {
        Some(membership) => membership,
        None => {
            let _entering = daemon.begin_entering()?;
            let (membership, authority) = plan(daemon, request)?;
            save(daemon, &membership, &authority).map_err(internal)?;
            membership
        }
    };
    Ok(Success {
        message,
        payload: Some(described(daemon, &membership, None)),
    })
}

/// What to say of a network that was started for the first time.
pub(crate) async fn started(daemon: &Daemon, membership: &Membership) -> Outcome {
    let request = InviteRequest::lasting(TTL_SECS_DEFAULT);
    // The network is there without it; `invite create` makes another.
    let invite = invites::make(daemon, request).await.ok();
    Ok(Success {
        message: format!("network {} is running", membership.network),
        payload: Some(described(daemon, membership, invite)),
    })
}

/// A network, for whoever has made or started it.
pub(crate) fn described(
    daemon: &Daemon,
    membership: &Membership,
    invite: Option<ployz_api::Invite>,
) -> Payload {
    Payload::MeshInit(Box::new(MeshInit {
        network: membership.network.clone(),
        network_id: membership.network_id,
        id: daemon.identity.machine_id,
        name: membership.name.clone(),
        overlay_ip: membership.overlay_ip,
        overlay_ip6: membership.overlay_ip6,
        subnet: membership.subnet,
        invite,
    }))
}

fn same_name(membership: &Membership, request: &MeshInitRequest) -> Result<(), Failure> {
    if membership.network == request.name {
        return Ok(());
    }
    let message = format!("this machine is in network {}", membership.network);
    Err(Failure::new(Code::NetworkAlreadyRunning, message).hint("ployzctl mesh status"))
}

/// The file that makes it a member comes last; both are there, or neither.
fn save(daemon: &Daemon, membership: &Membership, authority: &Authority) -> anyhow::Result<()> {
    let authority = daemon.files.write(AUTHORITY_FILE, authority);
    let written = authority.and_then(|()| daemon.files.write(FILE, membership));
    if written.is_err() {
        forget(daemon)?;
    }
    written
}

fn forget(daemon: &Daemon) -> anyhow::Result<()> {
    daemon.files.remove(FILE)?;
    daemon.files.remove(AUTHORITY_FILE)
}

fn plan(daemon: &Daemon, request: MeshInitRequest) -> Result<(Membership, Authority), Failure> {
    let cidr = match request.cluster_cidr {
        Some(cidr) => cidr,
        None => CLUSTER_CIDR_DEFAULT
            .parse()
            .map_err(anyhow::Error::from)
            .map_err(internal)?,
    };
    let prefix_len = request
        .subnet_prefix_len
        .unwrap_or(SUBNET_PREFIX_LEN_DEFAULT);
    let refused = |message: String| Failure::new(Code::InvalidArgument, message);
    let addresses = AddressPlan::new(cidr, prefix_len).map_err(|e| refused(e.to_string()))?;
    if let Some(taken) = local_addresses::overlap(cidr, &daemon.config.interface) {
        let message = format!("{cidr} is in use here: this machine has the address {taken}");
        return Err(refused(message).hint("ployzctl mesh init <name> --cluster-cidr <another>"));
    }
    draw_up(daemon, request, addresses).map_err(internal)
}

fn draw_up(
    daemon: &Daemon,
    request: MeshInitRequest,
    plan: AddressPlan,
) -> anyhow::Result<(Membership, Authority)> {
    let (unix_ms, random) = clock::id_parts();
    let network_id = NetworkId::new(unix_ms, random);
    let own = plan
        .addresses(network_id, 0)
        .context("a plan has room for one")?;
    let id = daemon.identity.machine_id;
    let authority = Authority::generate(&network_id.to_string())?;
    let certificate_pem = authority.certify_machine(
        &id.to_string(),
        &[own.overlay_ip.into(), own.overlay_ip6.into()],
        &daemon.identity.certificate_key()?,
    )?;
    let membership = Membership {
        network_id,
        network: request.name,
        name: daemon.config.name.clone(),
        cluster_cidr: plan.cluster_cidr(),
        addresses: Some(plan),
        overlay_ip: own.overlay_ip,
        overlay_ip6: own.overlay_ip6,
        subnet: own.subnet,
        ca_pem: authority.certificate_pem().to_owned(),
        certificate_pem,
        store_epoch: 0,
        store: vec![store_address(own.overlay_ip, daemon.config.nats_port)],
        state: NetworkState::Created,
        wg_port: request.wg_port,
        endpoints: request.endpoints,
    };
    Ok((membership, authority))
}
