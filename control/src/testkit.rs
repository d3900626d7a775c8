//! A real store on the loopback interface. Tests that use it are ignored unless they are asked for, because it takes
//! the servers that `scripts/setup test` installs; `scripts/test` asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ployz_api::{
    Authority as Held, CredentialId, Lifecycle, MachineId, Name, NetworkId, NetworkState,
    RegionRole,
};
use ployz_core::{MachineRecord, RECORD_VERSION, SavedView};
use rcgen::KeyPair;
use serde_json::Map;
use tokio::task::LocalSet;

use crate::host::ca::CertificateAuthority;
use crate::host::clock;
use crate::host::config::{BackendArgument, Config, Runtime, ServiceMode};
use crate::host::files::DataDirectory;
use crate::host::identity::Identity;
use crate::host::logging::LogFormat;
use crate::host::membership::Membership;
use crate::nats::{Certificates, DIRECTORY, NatsServer, Settings, User};
use crate::network::{Network, Storage};
use crate::store::{MACHINES, Store, StoreError};

/// Generous for everything that is not measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A store, its authority, and the machine that holds it.
pub(crate) struct Ground {
    files: Rc<DataDirectory>,
    directory: PathBuf,
    program: PathBuf,
    pub(crate) nats: NatsServer,
    pub(crate) authority: CertificateAuthority,
    pub(crate) holder: Identity,
    network_id: NetworkId,
    listen: SocketAddr,
}

/// The program of a version, beside the one that is under test.
pub(crate) fn program(version: &str) -> PathBuf {
    let under_test = program_under_test();
    let versions = under_test.ancestors().nth(2).unwrap();
    versions.join(format!("nats-server-{version}/nats-server"))
}

/// The program that is under test.
pub(crate) fn program_under_test() -> PathBuf {
    let under_test = std::env::var_os("NATS_SERVER_UNDER_TEST")
        .expect("NATS_SERVER_UNDER_TEST names the nats-server that scripts/setup test installs");
    PathBuf::from(under_test)
}

/// Runs a test as the daemon runs: on one thread.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

impl Ground {
    /// A store of the server that is under test, with its buckets.
    pub(crate) async fn under_test() -> Self {
        Self::new(&program_under_test()).await
    }

    /// Starts a store with its buckets.
    pub(crate) async fn new(program: &Path) -> Self {
        let ground = Self::bare(program).await;
        let store = ground.store(&ground.holder).await;
        store.make_buckets(1).await.unwrap();
        ground
    }

    /// Starts a store without buckets.
    pub(crate) async fn bare(program: &Path) -> Self {
        let (unix_ms, random) = clock::id_parts();
        let network_id = NetworkId::new(unix_ms, random);
        let directory = std::env::temp_dir().join(format!("ployz-ground-{network_id}"));
        let files = Rc::new(DataDirectory::open(&directory).unwrap());
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ground = Self {
            nats: NatsServer::new(Rc::clone(&files), program, None),
            program: program.to_owned(),
            authority: CertificateAuthority::generate(&network_id.to_string()).unwrap(),
            holder: Identity::generate().unwrap(),
            network_id,
            listen: free.local_addr().unwrap(),
            directory,
            files,
        };
        drop(free);
        let membership = ground.membership(&ground.holder);
        let certificates = Certificates {
            ca_pem: &membership.ca_pem,
            certificate_pem: &membership.certificate_pem,
            key_pem: ground.holder.certificate_key_pem.expose(),
        };
        ground
            .nats
            .set_up(&ground.settings(&[]), certificates)
            .unwrap();
        ground.nats.start().await.unwrap();
        ground
    }

    /// Kills the server, and waits until this client has noticed.
    pub(crate) async fn cut_power(&self, store: &Store) {
        self.nats.kill();
        wait_until("the end of the server", PATIENCE, || {
            !self.nats.is_running() && !store.is_connected()
        })
        .await;
    }

    /// Starts the server again, and waits for this client.
    pub(crate) async fn restore_power(&self, store: &Store) {
        self.nats.start().await.unwrap();
        store.wait_connected(PATIENCE).await.unwrap();
    }

    /// Kills the server, and deletes everything that was written before anybody can start it again.
    pub(crate) fn lose_disk(&self) {
        self.nats.kill();
        while self.nats.is_running() {
            std::thread::yield_now();
        }
        self.files.remove(&format!("{DIRECTORY}/store")).unwrap();
    }

    /// A client, connected.
    pub(crate) async fn store(&self, identity: &Identity) -> Store {
        let store = Store::open(&self.membership(identity), identity)
            .await
            .unwrap();
        store.wait_connected(PATIENCE).await.unwrap();
        store
    }

    /// Lets these in as well.
    pub(crate) fn admit(&self, machines: &[Identity]) {
        self.nats.configure(&self.settings(machines)).unwrap();
    }

    /// What the holder's network has of it.
    pub(crate) async fn storage(&self) -> Storage {
        Storage {
            nats: NatsServer::new(Rc::clone(&self.files), &self.program, None),
            authority: CertificateAuthority::generate(&self.network_id.to_string()).unwrap(),
            nkey: self.holder.nkey().unwrap(),
        }
    }

    /// The files of the holder.
    pub(crate) fn files(&self) -> &Rc<DataDirectory> {
        &self.files
    }

    /// A machine's place in the network.
    pub(crate) fn membership(&self, identity: &Identity) -> Membership {
        let key = identity.certificate_key().unwrap();
        let subject = identity.machine_id.to_string();
        membership(
            self.network_id,
            &subject,
            &self.authority,
            &key,
            self.listen,
        )
    }

    /// The settings of the server, for the holder and these.
    pub(crate) fn settings(&self, machines: &[Identity]) -> Settings {
        let user = |identity: &Identity, coordinator| User {
            machine: identity.machine_id,
            nkey: identity.nkey().unwrap(),
            coordinator,
        };
        let others = machines.iter().map(|machine| user(machine, false));
        Settings {
            machine: self.holder.machine_id,
            listen: self.listen,
            users: std::iter::once(user(&self.holder, true))
                .chain(others)
                .collect(),
            cluster: None,
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.nats.kill();
        let _already_gone = std::fs::remove_dir_all(&self.directory);
    }
}

/// Writes a machine's record, as often as it takes: a client that has not noticed yet that its server is gone loses
/// what it is given.
pub(crate) async fn write(store: &Store, record: &MachineRecord) {
    let written = async {
        loop {
            match store.put(MACHINES, &key(record.id), record).await {
                Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
                other => break other.map(drop),
            }
        }
    };
    let written = tokio::time::timeout(PATIENCE, written).await;
    written.expect("the store takes it in time").unwrap();
}

/// A network whose store does not answer, which is all that it takes to decide things in a view.
pub(crate) struct Offline {
    directory: PathBuf,
    files: Rc<DataDirectory>,
    authority: CertificateAuthority,
    own: Identity,
    network_id: NetworkId,
}

impl Offline {
    pub(crate) fn new() -> Self {
        let (unix_ms, random) = clock::id_parts();
        let network_id = NetworkId::new(unix_ms, random);
        let directory = std::env::temp_dir().join(format!("ployz-offline-{network_id}"));
        Self {
            files: Rc::new(DataDirectory::open(&directory).unwrap()),
            directory,
            authority: CertificateAuthority::generate(&network_id.to_string()).unwrap(),
            own: Identity::generate().unwrap(),
            network_id,
        }
    }

    /// The network with these machines in view, of one that holds the store or of one that does not.
    pub(crate) async fn network(&self, holds: bool, machines: Vec<MachineRecord>) -> Network {
        self.network_without(holds, machines, BTreeSet::new()).await
    }

    /// The same, in which these credentials were revoked.
    pub(crate) async fn network_without(
        &self,
        holds: bool,
        machines: Vec<MachineRecord>,
        revoked: BTreeSet<CredentialId>,
    ) -> Network {
        let membership = self.membership();
        let store = Store::open(&membership, &self.own).await.unwrap();
        let storage = holds.then(|| Storage {
            nats: NatsServer::new(Rc::clone(&self.files), Path::new("nats-server"), None),
            authority: CertificateAuthority::generate(&self.network_id.to_string()).unwrap(),
            nkey: self.own.nkey().unwrap(),
        });
        let saved = SavedView {
            confirmed_at: clock::now().unix_secs,
            machines,
            revoked,
            roamed: BTreeMap::new(),
            initiations: BTreeMap::new(),
        };
        Network::new(self.own.machine_id, membership, store, storage, Some(saved))
    }

    /// A client of the store that does not answer.
    pub(crate) async fn store(&self) -> Store {
        Store::open(&self.membership(), &self.own).await.unwrap()
    }

    fn membership(&self) -> Membership {
        member_of(self.network_id, &self.authority, &self.own)
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_dir_all(&self.directory);
    }
}

/// The settings of a daemon that opens nothing by itself and finds no server of the store.
pub(crate) fn config(data_dir: PathBuf) -> Config {
    Config {
        data_dir,
        name: Name::nearest("m1"),
        region: Name::nearest("local"),
        interface: "none".to_owned(),
        mtu: 1_420,
        wg_port: 51_820,
        wg_endpoint: Vec::new(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 51_821)),
        nats_server: PathBuf::from("/nonexistent/nats-server"),
        nats_unit: None,
        nats_port: 4_222,
        metrics_listen: None,
        io_backend: BackendArgument::Auto,
        shards: 1,
        runtime: Runtime::Host,
        docker_socket: PathBuf::from("/nowhere"),
        service_mode: ServiceMode::System,
        release_base: None,
        log_format: LogFormat::Auto,
    }
}

/// The place of a machine in a network whose store does not answer.
pub(crate) fn member_of(
    network_id: NetworkId,
    authority: &CertificateAuthority,
    identity: &Identity,
) -> Membership {
    let key = identity.certificate_key().unwrap();
    let subject = identity.machine_id.to_string();
    // Discard: no server listens there.
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    membership(network_id, &subject, authority, &key, nowhere)
}

/// The record of machine `number`.
pub(crate) fn record(identity: &Identity, number: u16) -> MachineRecord {
    let [high, low] = number.to_be_bytes();
    let subnet = Ipv4Addr::new(10, high, low, 0);
    MachineRecord {
        version: RECORD_VERSION,
        id: identity.machine_id,
        name: Name::nearest(&format!("m{number}")),
        lifecycle: Lifecycle::Active,
        authority: Held::Compute,
        region: "local".to_owned(),
        region_role: RegionRole::Compute,
        availability_zone: None,
        overlay_ip: Ipv4Addr::new(10, high, low, 1),
        overlay_ip6: Ipv6Addr::new(0xfd00, 0, 0, number, 0, 0, 0, 1),
        subnet: Some(ipnet::Ipv4Net::new(subnet, 24).unwrap()),
        wireguard_key: identity.wireguard_key.public_key().to_string(),
        nkey: identity.nkey().unwrap(),
        certificate_key: None,
        endpoints: vec![SocketAddr::from(([192, 0, 2, 1], 51_820))],
        store_port: None,
        created_at: 0,
        labels: BTreeMap::new(),
        workloads: BTreeMap::new(),
        unknown: Map::new(),
    }
}

/// Polls until it holds.
pub(crate) async fn wait_until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(patience, waiting).await;
    assert!(waited.is_ok(), "waited {patience:?} in vain for {what}");
}

/// The key of a machine's records.
pub(crate) fn key(id: MachineId) -> String {
    id.to_string()
}

fn membership(
    network_id: NetworkId,
    subject: &str,
    authority: &CertificateAuthority,
    key: &KeyPair,
    store: SocketAddr,
) -> Membership {
    let certificate = authority.certify_store(subject.parse().unwrap(), &[store.ip()], key);
    Membership {
        network_id,
        network: Name::nearest("ground"),
        name: Name::nearest(subject),
        cluster_cidr: "127.0.0.0/8".parse().unwrap(),
        addresses: None,
        overlay_ip: Ipv4Addr::LOCALHOST,
        overlay_ip6: Ipv6Addr::LOCALHOST,
        subnet: "127.0.0.0/24".parse().unwrap(),
        ca_pem: authority.certificate_pem().to_owned(),
        certificate_pem: certificate.unwrap(),
        store: vec![(store.ip(), store.port())],
        state: NetworkState::Running,
        wg_port: None,
        endpoints: Vec::new(),
        store_epoch: 0,
        renewed: None,
    }
}

/// Checks a page of metrics: each family is introduced by its help and its type, and has all its samples there, each
/// once and with a number. Returns how many families there are.
pub(crate) fn assert_page(page: &str) -> usize {
    let (mut families, mut samples) = (BTreeMap::new(), BTreeSet::new());
    let mut current = ("", "");
    let mut help = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').expect(line);
            assert!(text.ends_with('.'), "{line}");
            help = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split_once(' ').expect(line);
            assert_eq!(current.0, help, "{line}");
            assert!(
                ["counter", "gauge", "histogram"].contains(&current.1),
                "{line}"
            );
            assert!(
                families.insert(current.0, current.1).is_none(),
                "twice: {line}"
            );
        } else {
            let (series, value) = line.rsplit_once(' ').expect(line);
            let name = series.split('{').next().unwrap_or_default();
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            let family = base.filter(|_| current.1 == "histogram").unwrap_or(name);
            assert_eq!(family, current.0, "away from its family: {line}");
            assert_eq!(current.1 == "counter", name.ends_with("_total"), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(series), "twice: {line}");
            assert_eq!(series.contains('{'), series.ends_with('}'), "{line}");
        }
    }
    assert!(page.ends_with('\n'));
    families.len()
}
