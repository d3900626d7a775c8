//! The machines of a test, and how they are asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ployz_api::client::{Between, Relayed, connect};
use ployz_api::{
    CertificateName, Code, Credential, Destination, Failure, InviteRequest, LOCAL_NETWORK,
    MEMBER_CREDENTIAL_FILE, MachineId, MeshInitRequest, Name, Outcome, Payload, Request, Role,
    Secret, Token,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::daemon::participation::Networks;
use crate::host::config::{Config, Runtime};
use crate::host::files::DataDirectory;
use crate::host::identity::Identity;
use crate::host::tasks::TaskGroup;
use crate::host::tls::Caller;
use crate::machine::{Machine, Root};
use crate::overlay::Overlay;
use crate::requests::{Asker, carry_out};
use crate::server::REQUESTS_MAX;
use crate::testkit::{self, PATIENCE, program, wait_until};

const PORT: u16 = 51_821;

/// The machines of one test, in a part of the loopback network that is most likely no other test's.
pub(super) struct Cluster {
    base: [u8; 2],
    directory: PathBuf,
    runtime: Runtime,
    pub(super) hosts: Vec<Host>,
}

/// A machine, and everything that runs for it.
pub(super) struct Host {
    pub(super) machine: Rc<Machine>,
    /// A permit of these is taken by each request that is under way.
    pub(super) requests: Rc<Semaphore>,
    networks: Rc<Networks>,
    tasks: TaskGroup,
}

impl Cluster {
    /// No machines yet.
    pub(super) fn new() -> Self {
        let second = rand::random_range(2..250_u8);
        let third = rand::random_range(0..15_u8) * 16;
        let name = format!("ployz-cluster-{second}-{third}-{}", std::process::id());
        Self {
            base: [second, third],
            directory: std::env::temp_dir().join(name),
            runtime: Runtime::Host,
            hosts: Vec::new(),
        }
    }

    /// Machines in one network: the first has founded it, the others have joined in their order.
    pub(super) async fn founded(count: usize) -> Self {
        Self::found(Self::new(), count).await
    }

    /// The same, of machines whose container engine does not answer: they claim workloads, and none of them runs.
    pub(super) async fn founded_without_engines(count: usize) -> Self {
        let mut cluster = Self::new();
        cluster.runtime = Runtime::Docker;
        Self::found(cluster, count).await
    }

    async fn found(mut cluster: Self, count: usize) -> Self {
        cluster.add_host().await;
        let found = Request::MeshInit(cluster.network("acme"));
        cluster.hosts[0].ask(found).await.unwrap();
        for _ in 1..count {
            cluster.join().await.unwrap();
        }
        cluster.wait_seen(count).await;
        cluster
    }

    /// The request that founds a network here.
    pub(super) fn network(&self, name: &str) -> MeshInitRequest {
        let [second, third] = self.base;
        let first = Ipv4Addr::new(127, second, third, 0);
        MeshInitRequest {
            name: Name::nearest(name),
            cluster_cidr: Some(ipnet::Ipv4Net::new(first, 20).unwrap()),
            subnet_prefix_len: Some(24),
            wg_port: None,
            endpoints: Vec::new(),
        }
    }

    /// One more host, in no network.
    pub(super) async fn add_host(&mut self) -> &Host {
        let number = u8::try_from(self.hosts.len()).unwrap();
        let [second, third] = self.base;
        // The address that it will have in the overlay: subnets are given in their order.
        let address = Ipv4Addr::new(127, second, third + number, 1);
        let directory = self.directory.join(format!("m{}", number + 1));
        self.hosts.push(
            Host::start(Config {
                runtime: self.runtime,
                ..config(number, address, directory)
            })
            .await,
        );
        self.hosts.last().unwrap()
    }

    /// One more host, which joins by an invite of the first machine's.
    pub(super) async fn join(&mut self) -> Result<&Host, Failure> {
        let token = self.invite().await?;
        self.add_host().await;
        let host = self.hosts.last().unwrap();
        host.ask(Request::InviteImport { token }).await?;
        Ok(host)
    }

    /// An invite's token.
    pub(super) async fn invite(&self) -> Result<Secret, Failure> {
        let request = Request::InviteCreate(InviteRequest::lasting(60));
        match self.hosts[0].ask(request).await?.payload {
            Some(Payload::Invite(invite)) => Ok(invite.token),
            other => panic!("{other:?}"),
        }
    }

    /// A machine's daemon ends as by SIGKILL, and is started again.
    pub(super) async fn restart(&mut self, at: usize) {
        let host = self.hosts.remove(at);
        host.kill().await;
        let config = host.machine.config.clone();
        drop(host);
        self.hosts.insert(at, Host::start(config).await);
    }

    /// Waits until every machine sees so many.
    pub(super) async fn wait_seen(&self, count: usize) {
        wait_until("every machine to see all", PATIENCE, || {
            self.hosts.iter().all(|host| host.sees() == count)
        })
        .await;
    }
}

/// A request to another machine, through one that is not trusted.
pub(super) const fn through<'a>(
    known_as: &'a Credential,
    destination: &'a Destination,
) -> Relayed<'a> {
    Relayed {
        known_as,
        destination,
        between: Between::Untrusted,
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for host in &self.hosts {
            host.machine.nats_server().kill();
        }
        let _already_gone = std::fs::remove_dir_all(&self.directory);
    }
}

impl Host {
    async fn start(config: Config) -> Self {
        let files = DataDirectory::open(&config.data_dir).unwrap();
        let identity = Identity::open(&files).unwrap();
        let (root, commands) = Root::channel();
        let overlay = Overlay::detached();
        let machine = Machine::new(config, files, identity, overlay, root).unwrap();
        let machine = Rc::new(machine);
        let requests = Rc::new(Semaphore::new(REQUESTS_MAX as usize));
        let networks = Rc::new(Networks::new(&machine, &requests));
        networks.resume().await.unwrap();
        let tasks = TaskGroup::default();
        let serving = Rc::clone(&networks);
        tasks.spawn(async move { serving.serve(commands).await.unwrap() });
        Self {
            machine,
            requests,
            networks,
            tasks,
        }
    }

    /// Its id.
    pub(super) fn id(&self) -> MachineId {
        self.machine.identity.machine_id
    }

    /// What it is called.
    pub(super) fn name(&self) -> String {
        self.machine.config.name.to_string()
    }

    /// Asks as root of the host does, past the server.
    pub(super) async fn ask(&self, request: Request) -> Outcome {
        let root = CertificateName {
            subject: "root".to_owned(),
            role: Role::Admin,
            network: LOCAL_NETWORK.to_owned(),
        };
        let root = Caller::named(root, None);
        let asker = Asker::new(&root, IpAddr::from(Ipv4Addr::LOCALHOST));
        Box::pin(carry_out(Rc::clone(&self.machine), asker, request)).await
    }

    /// Asks over QUIC, with the credential that the daemon leaves for root.
    pub(super) async fn ask_remotely(&self, request: &Request) -> Outcome {
        let credential = self.credential();
        let session = connect(&credential, Instant::now() + PATIENCE)
            .await
            .unwrap();
        let response = session.open(request).await.unwrap().only().await.unwrap();
        session.close().await;
        Outcome::from(response)
    }

    /// What root of the host shows to machines of the network.
    pub(super) fn credential(&self) -> Credential {
        let files = &self.machine.files;
        let found: Option<Credential> = files.read(MEMBER_CREDENTIAL_FILE).unwrap();
        Credential {
            endpoints: vec![self.machine.config.listen],
            ..found.expect("the machine is in a network")
        }
    }

    /// How many machines it sees.
    pub(super) fn sees(&self) -> usize {
        let network = self.machine.network();
        network.map_or(0, |network| network.view().machines().count())
    }

    /// The daemon ends, as by SIGKILL: what runs beside it goes on.
    pub(super) async fn kill(&self) {
        self.tasks.abort().await;
        self.networks.abandon().await;
    }
}

fn config(number: u8, address: Ipv4Addr, data_dir: PathBuf) -> Config {
    Config {
        name: Name::nearest(&format!("m{}", number + 1)),
        wg_endpoint: vec![SocketAddr::from((address, 51_820))],
        listen: SocketAddr::from((address, PORT)),
        nats_server: program("2.14.6"),
        ..testkit::config(data_dir)
    }
}

/// Checks that a request was refused with this code, and that its message or its hint says this.
pub(super) fn refused(outcome: Outcome, code: Code, words: &str) {
    let refused = outcome.expect_err("a refusal");
    assert_eq!(refused.code, code, "{refused:?}");
    let hint = refused.hint.as_deref().unwrap_or_default();
    let said = format!("{}; {hint}", refused.message);
    assert!(said.contains(words), "'{words}' is not in '{said}'");
}

/// What a request has answered, of the kind that is expected.
macro_rules! payload {
    ($answer:expr, $kind:ident) => {{
        let answer: ployz_api::Outcome = $answer;
        match answer.unwrap().payload {
            Some(ployz_api::Payload::$kind(payload)) => payload,
            other => panic!("{other:?}"),
        }
    }};
}
pub(super) use payload;

/// A token, opened.
pub(super) fn opened(token: &Secret) -> Token {
    Token::decode(token.expose()).unwrap()
}

/// Longer than anything that is not measured.
pub(super) const OPERATION_WAIT: Duration = Duration::from_secs(90);
