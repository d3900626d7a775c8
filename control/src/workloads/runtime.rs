//! The runtimes of workloads: the container engine for images; for commands of the host systemd, or this daemon where
//! there is none.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use ployz_api::InstanceId;
use ployz_core::Seen;

use crate::host::config::{Config, Runtime};
use crate::host::files::DataDirectory;
use crate::workloads::containers::Containers;
use crate::workloads::error::WorkloadError;
use crate::workloads::job::Job;
use crate::workloads::processes::Processes;
use crate::workloads::units::Units;

/// sd_booted(3).
const SYSTEMD: &str = "/run/systemd/system";

#[derive(Debug)]
pub(super) enum Engine {
    Units(Units),
    Processes(Processes),
    Containers(Containers),
}

impl Engine {
    pub(super) fn new(config: &Config, files: Rc<DataDirectory>) -> Self {
        if config.runtime == Runtime::Docker {
            let socket = config.docker_socket.clone();
            Self::Containers(Containers::new(
                socket,
                config.interface.clone(),
                config.mtu,
            ))
        } else if Path::new(SYSTEMD).is_dir() {
            Self::Units(Units::new(files))
        } else {
            Self::Processes(Processes::new(files))
        }
    }

    /// The state of these instances.
    pub(super) async fn observe(
        &self,
        ids: &[InstanceId],
    ) -> Result<BTreeMap<InstanceId, Seen>, WorkloadError> {
        match self {
            Self::Units(units) => units.observe(ids).await,
            Self::Processes(processes) => Ok(processes.observe(ids)),
            Self::Containers(containers) => containers.observe(ids).await,
        }
    }

    /// Starts an instance that does not run.
    pub(super) async fn start(&self, job: &Job<'_>) -> Result<(), WorkloadError> {
        match self {
            Self::Units(units) => units.start(job).await,
            Self::Processes(processes) => processes.start(job),
            Self::Containers(containers) => containers.start(job).await,
        }
    }

    /// Stops an instance, if it runs, and returns when it has ended.
    pub(super) async fn stop(&self, id: InstanceId) -> Result<(), WorkloadError> {
        match self {
            Self::Units(units) => units.stop(id).await,
            Self::Processes(processes) => processes.stop(id).await,
            Self::Containers(containers) => containers.stop(id).await,
        }
    }

    /// The last lines of its output.
    pub(super) async fn logs(
        &self,
        id: InstanceId,
        lines: u32,
    ) -> Result<Vec<String>, WorkloadError> {
        match self {
            Self::Units(units) => units.logs(id, lines).await,
            Self::Processes(processes) => processes.logs(id, lines),
            Self::Containers(containers) => containers.logs(id, lines).await,
        }
    }
}
