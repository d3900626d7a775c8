//! Founding a network here.
//!
//! Everything that can be wrong is looked at first. Then the network is made next to the running daemon; the file that
//! says that this machine is a member comes last, and whatever fails before takes everything back.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use ipnet::IpNet;
use ployz_api::{
    Authority as Held, Code, Failure, InviteRequest, Lifecycle, MeshInit, MeshInitRequest,
    NetworkId, Outcome, Payload, RegionRole, Success, TTL_SECS_DEFAULT,
};
use ployz_core::{
    AddressPlan, CLUSTER_CIDR_DEFAULT, MachineRecord, RECORD_VERSION, SUBNET_PREFIX_LEN_DEFAULT,
};
use quinn::Endpoint;
use serde_json::Map;

use super::redeem::claim;
use super::{internal, invites};
use crate::authority::Authority;
use crate::clock;
use crate::daemon::Daemon;
use crate::events;
use crate::host;
use crate::membership::{AUTHORITY_FILE, FILE, Membership, VIEW_FILE};
use crate::nats::{Certificates, NatsServer, Settings, User};
use crate::network::Storage;
use crate::overlay::{interface_addresses, store_address};
use crate::store::{MACHINES, Store};

/// From the start of the process to its first answer takes half a second.
const STORE_WAIT: Duration = Duration::from_secs(15);

/// A network on paper.
struct Plan {
    membership: Membership,
    authority: Authority,
    record: MachineRecord,
    addresses: [IpNet; 2],
}

pub(super) async fn init(daemon: &Rc<Daemon>, request: MeshInitRequest) -> Outcome {
    if let Some(network) = daemon.network() {
        return if network.membership.network == request.name {
            Ok(Success {
                message: format!("network {} is running here already", request.name),
                payload: Some(described(daemon, &network.membership, None)),
            })
        } else {
            let message = format!("this machine is in network {}", network.membership.network);
            Err(Failure::new(Code::NetworkAlreadyRunning, message).hint("ployzctl status"))
        };
    }
    let _entering = daemon.begin_entering()?;
    let plan = plan(daemon, request)?;
    let files = Rc::clone(&daemon.files);
    let nats = NatsServer::new(files, &daemon.config.nats_server).await?;
    // Before anything is made: a port that is taken is the most likely of all mistakes.
    let management = daemon
        .bind_management(&plan.membership)
        .map_err(cannot_listen)?;
    match found(daemon, &plan, &nats).await {
        Ok(store) => finish(daemon, plan, nats, store, management).await,
        Err(failure) => {
            take_back(daemon, &plan, &nats).await.map_err(internal)?;
            Err(failure)
        }
    }
}

fn plan(daemon: &Daemon, request: MeshInitRequest) -> Result<Plan, Failure> {
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
    if let Some(taken) = host::overlap(cidr, &daemon.config.interface) {
        let message = format!("{cidr} is in use here: this machine has the address {taken}");
        return Err(refused(message).hint("ployzctl mesh init <name> --cluster-cidr <another>"));
    }
    draw_up(daemon, request, addresses).map_err(internal)
}

fn draw_up(daemon: &Daemon, request: MeshInitRequest, plan: AddressPlan) -> anyhow::Result<Plan> {
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
    let endpoints = if request.endpoints.is_empty() {
        daemon.endpoints()
    } else {
        request.endpoints
    };
    let record = MachineRecord {
        version: RECORD_VERSION,
        id,
        name: daemon.config.name.clone(),
        lifecycle: Lifecycle::Active,
        authority: Held::Storage,
        region: daemon.config.region.to_string(),
        region_role: RegionRole::HomeData,
        availability_zone: None,
        overlay_ip: own.overlay_ip,
        overlay_ip6: own.overlay_ip6,
        subnet: Some(own.subnet),
        wireguard_key: daemon.identity.wireguard_key.public_key().to_string(),
        nkey: daemon.identity.nkey()?,
        endpoints,
        store_port: Some(daemon.config.nats_port),
        created_at: clock::now().unix_secs,
        labels: std::collections::BTreeMap::new(),
        unknown: Map::new(),
    };
    let membership = Membership {
        network_id,
        network: request.name,
        name: record.name.clone(),
        cluster_cidr: plan.cluster_cidr(),
        addresses: Some(plan),
        overlay_ip: own.overlay_ip,
        overlay_ip6: own.overlay_ip6,
        subnet: own.subnet,
        ca_pem: authority.certificate_pem().to_owned(),
        certificate_pem,
        store: vec![store_address(own.overlay_ip, daemon.config.nats_port)],
    };
    let addresses = interface_addresses(plan.cluster_cidr(), own.overlay_ip, own.overlay_ip6)?;
    Ok(Plan {
        membership,
        authority,
        record,
        addresses,
    })
}

/// Starts the store and writes the first records.
async fn found(daemon: &Daemon, plan: &Plan, nats: &NatsServer) -> Result<Store, Failure> {
    // What a daemon that was killed in the middle of this had made.
    nats.destroy().await.map_err(internal)?;
    daemon
        .overlay
        .add_addresses(&plan.addresses)
        .await
        .map_err(internal)?;
    let membership = &plan.membership;
    let settings = Settings {
        machine: plan.record.id,
        listen: (membership.overlay_ip, daemon.config.nats_port).into(),
        users: vec![User {
            machine: plan.record.id,
            nkey: plan.record.nkey.clone(),
            coordinator: true,
        }],
    };
    let certificates = Certificates {
        ca_pem: &membership.ca_pem,
        certificate_pem: &membership.certificate_pem,
        key_pem: daemon.identity.certificate_key_pem.expose(),
    };
    nats.set_up(&settings, certificates).map_err(internal)?;
    nats.start().map_err(internal)?;
    let store = Store::open(membership, &daemon.identity)
        .await
        .map_err(internal)?;
    store.wait_connected(STORE_WAIT).await.map_err(|failure| {
        let words = nats.last_words();
        Failure::new(
            failure.code,
            format!("{failure}; nats-server says: {words}"),
        )
    })?;
    store.make_buckets().await?;
    events::make_stream(&store).await?;
    let id = plan.record.id;
    claim(&store, "subnet.0", id).await?;
    claim(&store, &format!("name.{}", plan.record.name), id).await?;
    store
        .create(MACHINES, &id.to_string(), &plan.record)
        .await?;
    Ok(store)
}

/// From here on it is a network, whatever happens.
async fn finish(
    daemon: &Rc<Daemon>,
    plan: Plan,
    nats: NatsServer,
    store: Store,
    management: Endpoint,
) -> Outcome {
    let commit = || -> anyhow::Result<()> {
        daemon.files.write(AUTHORITY_FILE, &plan.authority)?;
        daemon.files.remove(VIEW_FILE)?;
        daemon.files.write(FILE, &plan.membership)
    };
    if let Err(error) = commit() {
        take_back(daemon, &plan, &nats).await.map_err(internal)?;
        return Err(internal(error));
    }
    let authority = plan.authority;
    let storage = Storage { nats, authority };
    let membership = plan.membership;
    daemon
        .enter(membership.clone(), store, Some(storage), management)
        .map_err(internal)?;
    let request = InviteRequest {
        ttl_secs: TTL_SECS_DEFAULT,
        name: None,
    };
    // The network is there without it; `invite create` makes another.
    let invite = invites::make(daemon, request).await.ok();
    Ok(Success {
        message: format!("network {} is running", membership.network),
        payload: Some(described(daemon, &membership, invite)),
    })
}

async fn take_back(daemon: &Daemon, plan: &Plan, nats: &NatsServer) -> anyhow::Result<()> {
    nats.destroy().await?;
    daemon.overlay.remove_addresses(&plan.addresses).await?;
    daemon.files.remove(FILE)?;
    daemon.files.remove(AUTHORITY_FILE)
}

fn described(
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

fn cannot_listen(error: anyhow::Error) -> Failure {
    Failure::new(Code::InvalidArgument, format!("{error:#}"))
}
