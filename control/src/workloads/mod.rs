//! The workloads of this machine. It reconciles them with its own record: claimed instances are run, others are
//! stopped. Instances are kept on disk, so that they start again without the store.
//!
//! ```text
//!   workloads/<instance>/instance.json     the instance's record; only root may read its environment
//!   workloads/<instance>/launch.json       what the launcher of a command reads
//!   volumes/<namespace>/<name>/<volume>/   the content of a volume
//! ```

mod containers;
mod error;
mod fetch;
mod job;
pub(crate) mod launch;
mod mounts;
mod processes;
mod runtime;
mod units;
mod users;
mod volumes;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ployz_api::{InstanceId, Name, WorkloadName, WorkloadState};
use ployz_core::{InstanceRecord, Seen, Supervision};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::host::clock;
use crate::host::config::{Config, Runtime};
use crate::host::error::HostError;
use crate::host::files::DataDirectory;
use crate::host::program::blocking;
use crate::network::{Client, Network};

use job::{DIRECTORY, Job, directory};
use runtime::Engine;
use users::user_of;

pub(crate) use error::WorkloadError;
pub(crate) use volumes::{bytes, entries};

/// The interval at which instances and the record are checked.
const POLL: Duration = Duration::from_secs(1);
const VOLUMES: &str = "volumes";

/// The instances of this machine.
#[derive(Debug)]
pub(crate) struct Workloads {
    files: Rc<DataDirectory>,
    runtime: Runtime,
    engine: Engine,
    instances: RefCell<BTreeMap<InstanceId, Instance>>,
    /// The one permit to start and stop instances.
    turn: Semaphore,
    /// Workloads whose move this daemon coordinates.
    moving: Rc<RefCell<BTreeSet<WorkloadName>>>,
}

/// Held while a workload is being moved, which one request at a time may do.
#[derive(Debug)]
pub(crate) struct Moving {
    workload: WorkloadName,
    all: Rc<RefCell<BTreeSet<WorkloadName>>>,
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.all.borrow_mut().remove(&self.workload);
    }
}

#[derive(Debug)]
struct Instance {
    record: Rc<InstanceRecord>,
    supervision: Supervision,
    state: WorkloadState,
    /// The task that copies its volumes.
    copying: Option<JoinHandle<Result<(), WorkloadError>>>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(copying) = &self.copying {
            copying.abort();
        }
    }
}

impl Workloads {
    /// Reads the instances in the data directory. Nothing is started yet, and running instances continue.
    pub(crate) fn open(files: &Rc<DataDirectory>, config: &Config) -> Result<Self, WorkloadError> {
        let workloads = Self {
            files: Rc::clone(files),
            runtime: config.runtime,
            engine: Engine::new(config, Rc::clone(files)),
            instances: RefCell::default(),
            turn: Semaphore::new(1),
            moving: Rc::default(),
        };
        for id in workloads.kept()? {
            match files.read::<InstanceRecord>(&instance_file(id)) {
                Ok(Some(record)) => workloads.adopt(record),
                // The record is read from the store again.
                Ok(None) => {}
                Err(error) => tracing::warn!(%id, %error, "cannot adopt an instance"),
            }
        }
        Ok(workloads)
    }

    /// `docker` or `host`.
    pub(crate) const fn runtime(&self) -> &'static str {
        self.runtime.name()
    }

    /// The state of each instance.
    pub(crate) fn states(&self) -> BTreeMap<InstanceId, WorkloadState> {
        let instances = self.instances.borrow();
        instances.iter().map(|(id, it)| (*id, it.state)).collect()
    }

    /// Keeps other requests from moving a workload meanwhile.
    pub(crate) fn begin_to_move(&self, workload: &WorkloadName) -> Result<Moving, WorkloadError> {
        if !self.moving.borrow_mut().insert(workload.clone()) {
            return Err(WorkloadError::Moving(workload.clone()));
        }
        Ok(Moving {
            workload: workload.clone(),
            all: Rc::clone(&self.moving),
        })
    }

    /// Reconciles the instances with this machine's record. Never returns.
    pub(crate) async fn supervise(&self, network: &Network, client: &Client) {
        loop {
            // The semaphore is never closed.
            let turn = self.turn.acquire().await;
            if let Err(error) = self.round(client, network).await {
                tracing::warn!(%error, "cannot supervise workloads");
            }
            drop(turn);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops and removes all instances, and returns their number. Nothing is started until [`Self::resume_starts`].
    pub(crate) async fn stop_all(&self) -> Result<usize, WorkloadError> {
        // The semaphore is never closed.
        let turn = self.turn.acquire().await;
        let ids: Vec<InstanceId> = self.instances.borrow().keys().copied().collect();
        for id in &ids {
            self.remove(*id).await?;
        }
        if let Ok(turn) = turn {
            turn.forget();
        }
        Ok(ids.len())
    }

    /// Starts claimed instances again, after [`Self::stop_all`].
    pub(crate) fn resume_starts(&self) {
        self.turn.add_permits(1);
    }

    /// The last lines of a workload's output.
    pub(crate) async fn logs(
        &self,
        workload: &WorkloadName,
        lines: u32,
    ) -> Result<Vec<String>, WorkloadError> {
        let found = {
            let instances = self.instances.borrow();
            let of_it = |it: &&Instance| it.record.workload == *workload;
            instances.values().find(of_it).map(|it| it.record.id)
        };
        let id = found.ok_or_else(|| WorkloadError::NotHere(workload.clone()))?;
        self.engine.logs(id, lines).await
    }

    async fn round(&self, client: &Client, network: &Network) -> Result<(), WorkloadError> {
        let before = self.states();
        // Saved instances may be older than the record.
        let claims = network.own_claims();
        if let Some(claims) = claims {
            self.fetch(network, &claims).await;
            let unwanted = |id: &InstanceId| !claims.contains_key(id);
            let unwanted: Vec<InstanceId> = before.keys().copied().filter(unwanted).collect();
            for id in unwanted {
                self.remove(id).await?;
            }
        }
        self.run_due(client, network).await?;
        if self.states() != before {
            network.report_soon();
        }
        Ok(())
    }

    /// Reads claimed instances that are not known yet. A failed read is repeated in the next round.
    async fn fetch(&self, network: &Network, claims: &BTreeMap<InstanceId, WorkloadName>) {
        for (id, workload) in claims {
            if self.instances.borrow().contains_key(id) {
                continue;
            }
            match network.store.instance(network.own(), *id).await {
                Ok(Some(record)) => match self.keep(&record) {
                    Ok(()) => self.adopt(record),
                    Err(error) => {
                        tracing::warn!(%workload, %error, "cannot keep an instance");
                    }
                },
                // The instance is being removed, or its coordinator has died before it was written.
                Ok(None) => {}
                Err(error) => tracing::debug!(%workload, %error, "cannot read an instance yet"),
            }
        }
    }

    /// The directory of a volume whose workload is paused here because another machine is to run it.
    pub(crate) fn paused_volume(
        &self,
        workload: &WorkloadName,
        name: &Name,
    ) -> Result<PathBuf, WorkloadError> {
        let instances = self.instances.borrow();
        let is_paused =
            |it: &&Instance| it.record.workload == *workload && it.state == WorkloadState::Paused;
        let found = instances.values().find(is_paused);
        let found = found.ok_or_else(|| WorkloadError::NotPaused(workload.clone()))?;
        if !found.record.spec.volumes.contains_key(name) {
            return Err(WorkloadError::NoVolume {
                workload: workload.clone(),
                volume: name.clone(),
            });
        }
        Ok(self.files.path(&volume(workload, name)))
    }

    /// Starts instances that have to run and do not.
    async fn run_due(&self, client: &Client, network: &Network) -> Result<(), WorkloadError> {
        let ids: Vec<InstanceId> = self.instances.borrow().keys().copied().collect();
        let seen = self.engine.observe(&ids).await?;
        for id in ids {
            let mut seen = seen.get(&id).copied().unwrap_or(Seen::Nothing);
            if seen == Seen::Nothing && self.files.path(&ended_file(id)).exists() {
                // The runtime may have lost its exit status, as systemd does at a reboot.
                seen = Seen::Succeeded;
            }
            if seen == Seen::Succeeded {
                self.record_end(id)?;
            }
            if network.is_succeeded(id) && self.has_volumes(id) {
                self.engine.stop(id).await?;
                self.pause(id);
                continue;
            }
            if seen == Seen::Nothing && self.needs_volumes(id) {
                match self.copy(client, id).await {
                    None => continue,
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        tracing::warn!(%id, %error, "cannot copy volumes");
                        seen = Seen::Failed;
                    }
                }
            }
            if let Some(record) = self.evaluate(id, seen)
                && !self.needs_volumes(id)
            {
                let started = match self.job(network, &record).await {
                    Ok(job) => self.engine.start(&job).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = started {
                    let workload = &record.workload;
                    tracing::warn!(%workload, %error, "cannot start a workload");
                    self.evaluate(id, Seen::Failed);
                }
            }
        }
        Ok(())
    }

    /// Records success: an instance that has succeeded is not run again, also after a reboot.
    fn record_end(&self, id: InstanceId) -> Result<(), WorkloadError> {
        let file = ended_file(id);
        if self.files.path(&file).exists() {
            return Ok(());
        }
        Ok(self.files.write_bytes(&file, b"")?)
    }

    fn has_volumes(&self, id: InstanceId) -> bool {
        let instances = self.instances.borrow();
        instances
            .get(&id)
            .is_some_and(|it| !it.record.spec.volumes.is_empty())
    }

    /// Whether an instance was moved here and its volumes are not complete yet.
    fn needs_volumes(&self, id: InstanceId) -> bool {
        let instances = self.instances.borrow();
        let is_moved = instances
            .get(&id)
            .is_some_and(|it| it.record.from.is_some());
        is_moved && self.has_volumes(id) && !self.files.path(&copied_file(id)).exists()
    }

    /// Continues the copy of an instance's volumes; returns the outcome once there is one.
    async fn copy(&self, client: &Client, id: InstanceId) -> Option<Result<(), WorkloadError>> {
        let (record, copying) = {
            let mut instances = self.instances.borrow_mut();
            let instance = instances.get_mut(&id)?;
            if instance.state == WorkloadState::Waiting {
                // A failed copy is repeated when its wait is over.
                let now = clock::now().instant;
                let (state, starts) = instance.supervision.handle(Seen::Failed, now);
                instance.state = state;
                if !starts {
                    return None;
                }
            }
            instance.state = WorkloadState::Copying;
            let is_over = instance
                .copying
                .as_ref()
                .is_some_and(JoinHandle::is_finished);
            let copying = if is_over {
                instance.copying.take()
            } else {
                None
            };
            if copying.is_none() && instance.copying.is_some() {
                return None;
            }
            (Rc::clone(&instance.record), copying)
        };
        let Some(copying) = copying else {
            let copying = self.begin_to_copy(client, &record);
            self.instances.borrow_mut().get_mut(&id)?.copying = copying;
            return None;
        };
        let copied = copying.await.map_err(WorkloadError::CopyTask).flatten();
        Some(copied.and_then(|()| Ok(self.files.write_bytes(&copied_file(id), b"")?)))
    }

    fn begin_to_copy(
        &self,
        client: &Client,
        record: &Rc<InstanceRecord>,
    ) -> Option<JoinHandle<Result<(), WorkloadError>>> {
        let machine = record.from?;
        let names = record.spec.volumes.keys();
        let volumes = names.map(|name| {
            let directory = volume(&record.workload, name);
            (name.clone(), self.files.path(&directory))
        });
        let (client, record, volumes) = (client.clone(), Rc::clone(record), volumes.collect());
        Some(tokio::task::spawn_local(async move {
            fetch::fetch(&client, machine, &record.workload, volumes).await
        }))
    }

    /// Marks an instance as paused. It is started again if the other machine loses its claim.
    fn pause(&self, id: InstanceId) {
        if let Some(instance) = self.instances.borrow_mut().get_mut(&id) {
            instance.supervision = Supervision::default();
            instance.state = WorkloadState::Paused;
        }
    }

    /// Updates the state of an instance; returns its record if it is to be started now.
    fn evaluate(&self, id: InstanceId, seen: Seen) -> Option<Rc<InstanceRecord>> {
        let mut instances = self.instances.borrow_mut();
        let instance = instances.get_mut(&id)?;
        let (state, starts) = instance.supervision.handle(seen, clock::now().instant);
        if state != instance.state {
            tracing::info!(workload = %instance.record.workload, %id, %state, "workload");
            instance.state = state;
        }
        starts.then(|| Rc::clone(&instance.record))
    }

    async fn job<'a>(
        &self,
        network: &Network,
        record: &'a InstanceRecord,
    ) -> Result<Job<'a>, WorkloadError> {
        let mut volumes = Vec::new();
        for (name, place) in &record.spec.volumes {
            let directory = volume(&record.workload, name);
            self.files.make_directory(&directory)?;
            volumes.push((self.files.path(&directory), place.as_str()));
        }
        let user = user_of(&record.workload);
        if self.runtime == Runtime::Host {
            for (volume, _) in &volumes {
                hand_over(volume, user, record.privileged).await?;
            }
        }
        Ok(Job {
            record,
            volumes,
            user: (!record.privileged).then_some(user),
            address: network.membership.overlay_ip,
            subnet: network.membership.subnet,
        })
    }

    async fn remove(&self, id: InstanceId) -> Result<(), WorkloadError> {
        self.engine.stop(id).await?;
        self.files.remove(&directory(id))?;
        if let Some(gone) = self.instances.borrow_mut().remove(&id) {
            tracing::info!(workload = %gone.record.workload, %id, "workload removed");
        }
        Ok(())
    }

    fn keep(&self, record: &InstanceRecord) -> Result<(), WorkloadError> {
        self.files.make_directory(&directory(record.id))?;
        Ok(self.files.write(&instance_file(record.id), record)?)
    }

    fn adopt(&self, record: InstanceRecord) {
        let instance = Instance {
            supervision: Supervision::default(),
            state: WorkloadState::Unknown,
            record: Rc::new(record),
            copying: None,
        };
        let id = instance.record.id;
        self.instances.borrow_mut().insert(id, instance);
    }

    fn kept(&self) -> Result<Vec<InstanceId>, WorkloadError> {
        let path = self.files.path(DIRECTORY);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let entries = std::fs::read_dir(&path).map_err(HostError::file("read", &path))?;
        let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(ids.collect())
    }
}

/// Has a volume be the user's that its workload runs as. It is already, unless it is new, comes from a version that ran
/// every command as root, or was a privileged workload's.
async fn hand_over(volume: &Path, user: u32, privileged: bool) -> Result<(), HostError> {
    if privileged {
        return users::take_back(volume, user);
    }
    if !users::is_anothers(volume, user)? {
        return Ok(());
    }
    let volume = volume.to_owned();
    blocking(move || users::give(&volume, user)).await
}

fn instance_file(id: InstanceId) -> String {
    format!("{}/instance.json", directory(id))
}

/// The marker of complete volumes.
fn copied_file(id: InstanceId) -> String {
    format!("{}/copied", directory(id))
}

/// The marker of an instance that has succeeded.
fn ended_file(id: InstanceId) -> String {
    format!("{}/ended", directory(id))
}

/// The directory of a volume, within the data directory.
fn volume(workload: &WorkloadName, name: &Name) -> String {
    let path: PathBuf = [
        VOLUMES,
        workload.namespace.as_str(),
        workload.name.as_str(),
        name.as_str(),
    ]
    .iter()
    .collect();
    path.display().to_string()
}
