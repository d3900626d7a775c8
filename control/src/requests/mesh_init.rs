//! Drawing a network up here, and founding it.

use std::rc::Rc;

use ployz_api::{Code, Failure, MeshInitRequest, NetworkId, NetworkState, Outcome, Success};
use ployz_core::{AddressPlan, CLUSTER_CIDR_DEFAULT, SUBNET_PREFIX_LEN_DEFAULT};

use crate::host::ca::{CertificateAuthority, Subject};
use crate::host::clock;
use crate::host::error::HostError;
use crate::host::local_addresses;
use crate::host::membership::{AUTHORITY_FILE, FILE, Membership};
use crate::machine::Machine;
use crate::overlay::store_address;
use crate::requests::mesh;
use crate::requests::network_shown::{described, started};
use crate::services::founding::found;

/// Founds a network: draws it up, starts it, and makes the first invite.
pub(super) async fn init(here: &Rc<Machine>, request: MeshInitRequest) -> Outcome {
    let known = here.membership()?;
    if let Some(membership) = known {
        same_name(&membership, &request)?;
        return match membership.state {
            NetworkState::Running => Ok(Success {
                message: format!("network {} is running here already", membership.network),
                payload: Some(described(here, &membership, None)),
            }),
            NetworkState::Created | NetworkState::Stopped => mesh::start(here).await,
        };
    }
    let entering = here.begin_entering()?;
    let (membership, authority) = plan(here, request)?;
    save(here, &membership, &authority)?;
    if let Err(failure) = found(here, membership.clone(), authority).await {
        remove_files(here)?;
        return Err(failure);
    }
    drop(entering);
    started(here, &membership).await
}

/// Draws a network up, and starts nothing.
pub(super) fn create(here: &Machine, request: MeshInitRequest) -> Outcome {
    let known = here.membership()?;
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
            let _entering = here.begin_entering()?;
            let (membership, authority) = plan(here, request)?;
            save(here, &membership, &authority)?;
            membership
        }
    };
    Ok(Success {
        message,
        payload: Some(described(here, &membership, None)),
    })
}

fn same_name(membership: &Membership, request: &MeshInitRequest) -> Result<(), Failure> {
    if membership.network == request.name {
        return Ok(());
    }
    let message = format!("this machine is in network {}", membership.network);
    Err(Failure::new(Code::NetworkAlreadyRunning, message).hint("ployzctl mesh status"))
}

/// The file that makes it a member comes last; both are there, or neither.
fn save(
    here: &Machine,
    membership: &Membership,
    authority: &CertificateAuthority,
) -> Result<(), HostError> {
    let authority = here.files.write(AUTHORITY_FILE, authority);
    let written = authority.and_then(|()| here.files.write(FILE, membership));
    if written.is_err() {
        remove_files(here)?;
    }
    written
}

fn remove_files(here: &Machine) -> Result<(), HostError> {
    here.files.remove(FILE)?;
    here.files.remove(AUTHORITY_FILE)
}

fn plan(
    here: &Machine,
    request: MeshInitRequest,
) -> Result<(Membership, CertificateAuthority), Failure> {
    let cidr = match request.cluster_cidr {
        Some(cidr) => cidr,
        None => CLUSTER_CIDR_DEFAULT
            .parse()
            .expect("the default is a network"),
    };
    let prefix_len = request
        .subnet_prefix_len
        .unwrap_or(SUBNET_PREFIX_LEN_DEFAULT);
    let refused = |message: String| Failure::new(Code::InvalidArgument, message);
    let addresses = AddressPlan::new(cidr, prefix_len).map_err(|e| refused(e.to_string()))?;
    if let Some(taken) = local_addresses::overlap(cidr, &here.config.interface) {
        let message = format!("{cidr} overlaps with the address {taken} of this machine");
        return Err(refused(message).hint("ployzctl mesh init <name> --cluster-cidr <another>"));
    }
    plan_membership(here, request, addresses)
}

fn plan_membership(
    here: &Machine,
    request: MeshInitRequest,
    plan: AddressPlan,
) -> Result<(Membership, CertificateAuthority), Failure> {
    let (unix_ms, random) = clock::id_parts();
    let network_id = NetworkId::new(unix_ms, random);
    let own = plan.addresses(network_id, 0).ok_or_else(|| {
        Failure::new(Code::Internal, "the address plan has no room for a machine")
    })?;
    let id = here.identity.machine_id;
    let authority = CertificateAuthority::generate(&network_id.to_string())?;
    let subject = Subject {
        id,
        name: &here.config.name,
        holds_store: true,
    };
    let certificate_pem = authority.certify_machine(
        &subject,
        clock::now().unix_secs,
        &here.identity.certificate_key()?,
    )?;
    let membership = Membership {
        network_id,
        network: request.name,
        name: here.config.name.clone(),
        cluster_cidr: plan.cluster_cidr(),
        addresses: Some(plan),
        overlay_ip: own.overlay_ip,
        overlay_ip6: own.overlay_ip6,
        subnet: own.subnet,
        ca_pem: authority.certificate_pem().to_owned(),
        certificate_pem,
        store_epoch: 0,
        store: vec![store_address(own.overlay_ip, here.config.nats_port)],
        state: NetworkState::Created,
        wg_port: request.wg_port,
        endpoints: request.endpoints,
        renewed: None,
    };
    Ok((membership, authority))
}
