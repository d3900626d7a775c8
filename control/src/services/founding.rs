//! Starting a network that was drawn up here, for the first time.
//!
//! Everything that can be wrong is looked at first. Then the network is made next to the running daemon; the file that
//! says that this machine takes part is written last, and whatever fails before takes everything back.

use std::collections::BTreeMap;
use std::time::Duration;

use ployz_api::{Authority as Held, Code, Failure, Lifecycle, NetworkState, RegionRole};
use ployz_core::{MachineRecord, RECORD_VERSION};
use serde_json::Map;

use crate::host::ca::CertificateAuthority;
use crate::host::clock;
use crate::host::membership::{CERTIFICATES_FILE, FILE, Membership, OwnCertificates, VIEW_FILE};
use crate::machine::{Command, Entry, Machine, addresses};
use crate::nats::{Certificates, NatsServer, Settings, User};
use crate::network::Storage;
use crate::services::leases::claim_first;
use crate::services::renewal::certify;
use crate::store::{MACHINES, Store};

/// From the start of the process to its first answer takes half a second.
const STORE_WAIT: Duration = Duration::from_secs(15);

pub(crate) async fn found(
    here: &Machine,
    mut membership: Membership,
    authority: CertificateAuthority,
) -> Result<(), Failure> {
    let record = first_record(here, &membership)?;
    let certificates = certificates(here, &membership, &record, &authority)?;
    here.files.write(CERTIFICATES_FILE, &certificates)?;
    membership.renewed = Some(certificates);
    let nats = here.nats_server();
    nats.version().await?;
    // Before anything is made: a port that is taken is the most likely of all mistakes.
    let management = here.bind_management(&membership).await.map_err(invalid)?;
    if let Some(port) = membership.wg_port {
        here.overlay.set_port(port).await.map_err(invalid)?;
    }
    let started = async {
        let store = start_store(here, &membership, &record, &nats).await?;
        membership.state = NetworkState::Running;
        here.files.forget(VIEW_FILE)?;
        here.files.write(FILE, &membership)?;
        Ok(store)
    };
    let store = match started.await {
        Ok(store) => store,
        Err(failure) => {
            undo(here, &membership, &nats).await?;
            return Err(failure);
        }
    };
    // From here on it is a network, whatever happens.
    let storage = Storage {
        nats,
        authority,
        nkey: record.nkey,
    };
    let entry = Entry {
        membership,
        store,
        storage: Some(storage),
        management,
    };
    here.ask_root(Command::Enter(Box::new(entry))).await
}

/// Those of the first machine, however long ago the network was drawn up.
fn certificates(
    here: &Machine,
    membership: &Membership,
    record: &MachineRecord,
    authority: &CertificateAuthority,
) -> Result<OwnCertificates, Failure> {
    let key = here.identity.certificate_key()?;
    let signed = certify(authority, record, clock::now().unix_secs, &key)?;
    Ok(OwnCertificates::of(membership.network_id, signed))
}

fn first_record(here: &Machine, membership: &Membership) -> Result<MachineRecord, Failure> {
    let endpoints = if membership.endpoints.is_empty() {
        here.endpoints(membership.wg_port.unwrap_or(here.config.wg_port))
    } else {
        membership.endpoints.clone()
    };
    Ok(MachineRecord {
        version: RECORD_VERSION,
        id: here.identity.machine_id,
        name: membership.name.clone(),
        lifecycle: Lifecycle::Active,
        authority: Held::Storage,
        region: here.config.region.to_string(),
        region_role: RegionRole::HomeData,
        availability_zone: None,
        overlay_ip: membership.overlay_ip,
        overlay_ip6: membership.overlay_ip6,
        subnet: Some(membership.subnet),
        wireguard_key: here.identity.wireguard_key.public_key().to_string(),
        nkey: here.identity.nkey()?,
        certificate_key: Some(here.identity.certificate_fingerprint()?),
        endpoints,
        store_port: Some(here.config.nats_port),
        created_at: clock::now().unix_secs,
        labels: BTreeMap::new(),
        workloads: BTreeMap::new(),
        unknown: Map::new(),
    })
}

/// Starts the store and writes the first records.
async fn start_store(
    here: &Machine,
    membership: &Membership,
    record: &MachineRecord,
    nats: &NatsServer,
) -> Result<Store, Failure> {
    // What a daemon that was killed in the middle of this had made.
    nats.destroy().await?;
    let addresses = addresses(membership)?;
    here.overlay.add_addresses(&addresses).await?;
    let settings = Settings {
        machine: record.id,
        listen: (membership.overlay_ip, here.config.nats_port).into(),
        users: vec![User {
            machine: record.id,
            nkey: record.nkey.clone(),
            coordinator: true,
        }],
        cluster: None,
    };
    let certificates = Certificates {
        ca_pem: &membership.ca_pem,
        certificate_pem: membership.store_certificate(),
        key_pem: here.identity.certificate_key_pem.expose(),
    };
    nats.set_up(&settings, certificates)?;
    nats.start().await?;
    let store = Store::open(membership, &here.identity).await?;
    store.wait_connected(STORE_WAIT).await.map_err(|error| {
        let words = nats.last_words();
        let message = format!("{error}; nats-server says: {words}");
        Failure::new(Failure::from(error).code, message)
    })?;
    store.make_buckets(1).await?;
    claim_first(&store, &record.name, record.id).await?;
    let key = record.id.to_string();
    store.create(MACHINES, &key, record).await?;
    Ok(store)
}

async fn undo(here: &Machine, membership: &Membership, nats: &NatsServer) -> Result<(), Failure> {
    nats.destroy().await?;
    let overlay = &here.overlay;
    overlay.remove_addresses(&addresses(membership)?).await?;
    if membership.wg_port.is_some() {
        overlay.set_port(here.config.wg_port).await?;
    }
    Ok(())
}

/// A setting of the network, such as a port, that this host cannot provide.
fn invalid(error: impl Into<Failure>) -> Failure {
    Failure::new(Code::InvalidArgument, error.into().message)
}
