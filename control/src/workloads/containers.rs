//! Workloads as containers of the machine's Docker Engine, or of Podman through its socket. They outlive this daemon.
//!
//! ```text
//!   other machines ── ployz0 ── this machine ── ployz-c (bridge, network `ployz`) ── containers
//! ```
//!
//! The network is the machine's own subnet, so that containers have addresses in the overlay: the first is the
//! machine's, the second the bridge's. Packets to the overlay keep their source address; the engine translates all
//! others.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerSummaryStateEnum as State, HostConfig, HostConfigLogConfig, Ipam,
    IpamConfig, Mount, MountType, NetworkCreateRequest, PortBinding,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::StreamExt as _;
use ipnet::Ipv4Net;
use ployz_api::{InstanceId, Program};
use ployz_core::Seen;

use crate::host::error::{HostError, with_causes};
use crate::host::program;
use crate::host::tasks::TaskGroup;
use crate::workloads::error::WorkloadError;
use crate::workloads::job::{Job, LOGS_LEN_MAX, last_lines};

/// The time for an answer of the engine, which includes the stop of a container.
const PATIENCE_SECS: u64 = 60;
/// The time that a workload has to end after SIGTERM.
const STOP_WAIT_SECS: i32 = 10;
/// The time for a large image over a slow connection.
const PULL_WAIT: Duration = Duration::from_secs(1800);
/// The time for a change of the firewall.
const RULE_WAIT: Duration = Duration::from_secs(10);

/// The network, and its bridge.
const NETWORK: &str = "ployz";
const BRIDGE: &str = "ployz-c";
/// The label that names a container's instance.
const LABEL: &str = "ployz.instance";
/// A log of this length is moved aside, and replaces the one before it.
const LOG_LIMITS: [(&str, &str); 2] = [("max-size", "4m"), ("max-file", "2")];

/// The engine, and the network of containers.
#[derive(Debug)]
pub(super) struct Containers {
    socket: PathBuf,
    /// The overlay's interface, and its MTU.
    interface: String,
    mtu: u32,
    engine: RefCell<Option<Docker>>,
    /// Images that are being fetched.
    pulls: Rc<RefCell<BTreeSet<String>>>,
    pulling: TaskGroup,
}

impl Containers {
    pub(super) fn new(socket: PathBuf, interface: String, mtu: u32) -> Self {
        Self {
            socket,
            interface,
            mtu,
            engine: RefCell::default(),
            pulls: Rc::default(),
            pulling: TaskGroup::default(),
        }
    }

    pub(super) async fn observe(
        &self,
        ids: &[InstanceId],
    ) -> Result<BTreeMap<InstanceId, Seen>, WorkloadError> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let engine = self.engine().await?;
        let ours = HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&ours)
            .build();
        let mut seen = BTreeMap::new();
        let listed = engine.list_containers(Some(options)).await;
        for container in listed.map_err(WorkloadError::engine("list containers"))? {
            let labels = container.labels.unwrap_or_default();
            let Some(id) = labels.get(LABEL).and_then(|id| id.parse().ok()) else {
                continue;
            };
            let is = match container.state {
                Some(State::EXITED | State::DEAD) => ended(&engine, id).await?,
                Some(State::CREATED | State::REMOVING | State::EMPTY) | None => Seen::Nothing,
                Some(State::RUNNING | State::PAUSED | State::RESTARTING | State::STOPPING) => {
                    Seen::Running
                }
            };
            seen.insert(id, is);
        }
        Ok(seen)
    }

    pub(super) async fn start(&self, job: &Job<'_>) -> Result<(), WorkloadError> {
        let Program::Image(image) = &job.record.spec.program else {
            return Err(WorkloadError::Runtime {
                runtime: "docker",
                programs: "commands of the host",
            });
        };
        let engine = self.engine().await?;
        if engine
            .inspect_image(image)
            .await
            .is_err_and(|it| is_missing(&it))
        {
            self.pull(&engine, image);
            return Err(WorkloadError::FetchingImage(image.clone()));
        }
        self.prepare_network(&engine, job).await?;
        let name = container(job.record.id);
        // A container that has ended keeps its name until it is removed.
        remove(&engine, &name).await?;
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let created = engine.create_container(Some(options), described(job, image));
        created
            .await
            .map_err(WorkloadError::engine("create the container"))?;
        let started = engine.start_container(&name, None).await;
        started.map_err(WorkloadError::engine("start the container"))
    }

    pub(super) async fn stop(&self, id: InstanceId) -> Result<(), WorkloadError> {
        let (engine, name) = (self.engine().await?, container(id));
        let options = StopContainerOptionsBuilder::default()
            .t(STOP_WAIT_SECS)
            .build();
        match engine.stop_container(&name, Some(options)).await {
            Ok(()) => {}
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(WorkloadError::engine("stop the container")(error)),
        }
        remove(&engine, &name).await?;
        // The network is removed with its last container; the engine refuses while there are others.
        let _while_others_need_it = engine.remove_network(NETWORK).await;
        Ok(())
    }

    pub(super) async fn logs(
        &self,
        id: InstanceId,
        lines: u32,
    ) -> Result<Vec<String>, WorkloadError> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .tail(&lines.to_string())
            .build();
        let engine = self.engine().await?;
        let mut chunks = std::pin::pin!(engine.logs(&container(id), Some(options)));
        let mut text = String::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => text += &chunk.to_string(),
                // The container was never started.
                Err(error) if is_missing(&error) => break,
                Err(error) => return Err(WorkloadError::engine("read the log")(error)),
            }
            let surplus = text.len().saturating_sub(LOGS_LEN_MAX);
            text.drain(..text.ceil_char_boundary(surplus));
        }
        Ok(last_lines(&text, lines))
    }

    /// An engine that answers, with a version of its API that both sides support.
    async fn engine(&self) -> Result<Docker, WorkloadError> {
        if let Some(engine) = self.engine.borrow().clone() {
            return Ok(engine);
        }
        let absent = |error: Error| WorkloadError::NoEngine {
            socket: self.socket.clone(),
            cause: with_causes(&error),
        };
        let socket = self.socket.display().to_string();
        let engine = Docker::connect_with_unix(&socket, PATIENCE_SECS, API_DEFAULT_VERSION);
        let engine = engine.map_err(absent)?.negotiate_version().await;
        let engine = engine.map_err(absent)?;
        self.engine.replace(Some(engine.clone()));
        Ok(engine)
    }

    /// Fetches an image in the background: the next attempt to start finds it, or fetches again.
    fn pull(&self, engine: &Docker, image: &str) {
        if !self.pulls.borrow_mut().insert(image.to_owned()) {
            return;
        }
        let (pulls, engine, image) = (Rc::clone(&self.pulls), engine.clone(), image.to_owned());
        self.pulling.spawn(async move {
            let pulled = tokio::time::timeout(PULL_WAIT, fetch(&engine, &image)).await;
            match pulled {
                Ok(Ok(())) => tracing::info!(image, "image fetched"),
                Ok(Err(error)) => tracing::warn!(image, %error, "cannot fetch an image"),
                Err(_) => tracing::warn!(image, "image not fetched within {PULL_WAIT:?}"),
            }
            pulls.borrow_mut().remove(&image);
        });
    }

    /// Creates the network, if it is missing or of a former subnet, and opens the firewall to the overlay.
    async fn prepare_network(&self, engine: &Docker, job: &Job<'_>) -> Result<(), WorkloadError> {
        let subnet = job.subnet.to_string();
        match engine.inspect_network(NETWORK, None).await {
            Ok(found) => {
                let configs = found.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
                if !configs.iter().any(|it| it.subnet.as_ref() == Some(&subnet)) {
                    let removed = engine.remove_network(NETWORK).await;
                    removed.map_err(WorkloadError::engine("remove the former network"))?;
                    self.make_network(engine, job.subnet, job.address).await?;
                }
            }
            Err(error) if is_missing(&error) => {
                self.make_network(engine, job.subnet, job.address).await?;
            }
            Err(error) => return Err(WorkloadError::engine("show its network")(error)),
        }
        self.let_the_overlay_in(&subnet).await
    }

    async fn make_network(
        &self,
        engine: &Docker,
        subnet: Ipv4Net,
        own: Ipv4Addr,
    ) -> Result<(), WorkloadError> {
        let gateway = subnet.hosts().nth(1).ok_or(WorkloadError::Subnet(subnet))?;
        let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let request = NetworkCreateRequest {
            name: NETWORK.to_owned(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some(subnet.to_string()),
                    gateway: Some(gateway.to_string()),
                    auxiliary_addresses: Some(HashMap::from([option("machine", &own.to_string())])),
                    ..IpamConfig::default()
                }]),
                ..Ipam::default()
            }),
            options: Some(HashMap::from([
                option("com.docker.network.bridge.name", BRIDGE),
                option("com.docker.network.driver.mtu", &self.mtu.to_string()),
                // Since version 28 an engine drops packets to ports that are not published.
                option(
                    "com.docker.network.bridge.gateway_mode_ipv4",
                    "nat-unprotected",
                ),
            ])),
            ..NetworkCreateRequest::default()
        };
        let created = engine.create_network(request).await;
        created
            .map(drop)
            .map_err(WorkloadError::engine("create the network"))
    }

    /// Opens the firewall: an engine drops packets of interfaces that it does not know, and translates the source
    /// address of all that leave the machine.
    async fn let_the_overlay_in(&self, subnet: &str) -> Result<(), WorkloadError> {
        let overlay = &self.interface;
        let rules = [
            format!("-t filter DOCKER-USER -i {overlay} -o {BRIDGE} -j ACCEPT"),
            format!("-t nat POSTROUTING -s {subnet} -o {overlay} -j RETURN"),
        ];
        for rule in rules {
            let words: Vec<&str> = rule.split(' ').collect();
            let (table, rule) = words.split_at(2);
            if iptables(&[table, &["-C"], rule].concat()).await.is_err() {
                iptables(&[table, &["-I"], rule].concat())
                    .await
                    .map_err(WorkloadError::Firewall)?;
            }
        }
        Ok(())
    }
}

fn container(id: InstanceId) -> String {
    format!("ployz-{id}")
}

/// The description of a container for the engine.
fn described(job: &Job<'_>, image: &str) -> ContainerCreateBody {
    // Not as `binds`, in which a colon means something.
    let mounts = job.volumes.iter().map(|(directory, place)| Mount {
        typ: Some(MountType::BIND),
        source: Some(directory.display().to_string()),
        target: Some((*place).to_owned()),
        ..Mount::default()
    });
    let ports = job.record.spec.publish.iter();
    let ports = ports.map(|port| {
        let binding = PortBinding {
            host_port: Some(port.machine.to_string()),
            ..PortBinding::default()
        };
        (format!("{}/tcp", port.workload), Some(vec![binding]))
    });
    let ports: HashMap<_, _> = ports.collect();
    let limits = LOG_LIMITS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ContainerCreateBody {
        image: Some(image.to_owned()),
        env: Some(
            job.environment()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        ),
        labels: Some(HashMap::from([
            (LABEL.to_owned(), job.record.id.to_string()),
            ("ployz.workload".to_owned(), job.record.workload.to_string()),
        ])),
        host_config: Some(HostConfig {
            mounts: Some(mounts.collect()),
            privileged: Some(false),
            port_bindings: Some(ports.clone()),
            network_mode: Some(NETWORK.to_owned()),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from(limits)),
            }),
            ..HostConfig::default()
        }),
        // Ports that the image does not expose would not be bound.
        exposed_ports: Some(ports.into_keys().collect()),
        ..ContainerCreateBody::default()
    }
}

async fn ended(engine: &Docker, id: InstanceId) -> Result<Seen, WorkloadError> {
    let found = engine.inspect_container(&container(id), None).await;
    let found = found.map_err(WorkloadError::engine("show the container"))?;
    let code = found.state.and_then(|state| state.exit_code);
    Ok(if code == Some(0) {
        Seen::Succeeded
    } else {
        Seen::Failed
    })
}

async fn remove(engine: &Docker, name: &str) -> Result<(), WorkloadError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    match engine.remove_container(name, Some(options)).await {
        Err(error) if !is_missing(&error) => {
            Err(WorkloadError::engine("remove the container")(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn fetch(engine: &Docker, image: &str) -> Result<(), Error> {
    let mut options = CreateImageOptionsBuilder::default().from_image(image);
    // Without a tag the engine would fetch every tag.
    if !is_exact(image) {
        options = options.tag("latest");
    }
    let mut steps = std::pin::pin!(engine.create_image(Some(options.build()), None, None));
    while let Some(step) = steps.next().await {
        step?;
    }
    Ok(())
}

/// Whether a name has a tag or a digest.
fn is_exact(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or_default();
    last.contains([':', '@'])
}

fn is_missing(error: &Error) -> bool {
    matches!(
        error,
        Error::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}

async fn iptables(words: &[&str]) -> Result<(), HostError> {
    let line = [&["--wait", "5"], words].concat();
    program::run("iptables", &line, RULE_WAIT).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, expected) in [
            ("web", false),
            ("web:1", true),
            ("host:5000/web", false),
            ("host:5000/web:1", true),
            ("web@sha256:00", true),
        ] {
            assert_eq!(is_exact(image), expected, "{image}");
        }
    }

    /// What an engine is told, of a workload with everything.
    #[test]
    fn a_container_has_the_environment_volumes_ports_and_labels_of_its_workload_and_bounded_logs() {
        use ployz_api::{PublishedPort, Secret, WorkloadSpec};
        use ployz_core::{InstanceRecord, RECORD_VERSION};

        let record = InstanceRecord {
            privileged: false,
            version: RECORD_VERSION,
            workload: "shop/web".parse().unwrap(),
            id: InstanceId::new(1, 1),
            spec: WorkloadSpec {
                program: Program::Image("web:1".to_owned()),
                env: BTreeMap::from([
                    ("A".to_owned(), Secret::new("x=y z".to_owned())),
                    ("B".to_owned(), Secret::new(String::new())),
                ]),
                volumes: BTreeMap::from([("data".parse().unwrap(), "/data".to_owned())]),
                publish: vec![PublishedPort {
                    machine: 8_080,
                    workload: 80,
                }],
            },
            from: None,
        };
        let job = Job {
            record: &record,
            volumes: vec![("/var/lib/ployz/volumes/shop/web/data".into(), "/data")],
            user: Some(1),
            address: Ipv4Addr::new(10, 0, 1, 1),
            subnet: "10.0.1.0/24".parse().unwrap(),
        };
        let told = described(&job, "web:1");
        assert_eq!(told.env.unwrap(), ["A=x=y z", "B="]);
        assert_eq!(told.exposed_ports.unwrap(), ["80/tcp"]);
        let labels = told.labels.unwrap();
        assert_eq!(labels[LABEL], record.id.to_string());
        assert_eq!(labels["ployz.workload"], "shop/web");
        let host = told.host_config.unwrap();
        let mounts = host.mounts.unwrap();
        let ends = mounts
            .iter()
            .map(|it| (it.source.as_deref(), it.target.as_deref()));
        let expected = (Some("/var/lib/ployz/volumes/shop/web/data"), Some("/data"));
        assert!(
            ends.eq([expected]),
            "nothing of the host but volumes: {mounts:?}"
        );
        assert_eq!(host.binds, None);
        let ports = host.port_bindings.unwrap();
        let bound = ports["80/tcp"].as_ref().unwrap();
        assert_eq!(bound[0].host_port.as_deref(), Some("8080"));
        assert_eq!(host.network_mode.as_deref(), Some(NETWORK));
        let limits = host.log_config.unwrap().config.unwrap();
        assert_eq!(
            (limits["max-size"].as_str(), limits["max-file"].as_str()),
            ("4m", "2")
        );
        assert_eq!(host.privileged, Some(false));
    }
}
