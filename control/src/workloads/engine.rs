//! What runs workloads: containers the machine's engine; commands of the host systemd where it is, and else this daemon.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ipnet::Ipv4Net;
use ployz_api::InstanceId;
use ployz_core::{InstanceRecord, Seen};

use crate::host::config::{Config, Runtime};
use crate::host::files::DataDirectory;
use crate::workloads::containers::Containers;
use crate::workloads::processes::Processes;
use crate::workloads::units::Units;

/// Escaped in JSON, its worst is six times as long, and an answer has 1 MiB.
pub(super) const LOGS_LEN_MAX: usize = 128 << 10;
/// sd_booted(3).
const SYSTEMD: &str = "/run/systemd/system";

#[derive(Debug)]
pub(super) enum Engine {
    Units(Units),
    Processes(Processes),
    Containers(Containers),
}

/// What is to be run.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) record: &'a InstanceRecord,
    /// Directories, and where it is to find them.
    pub(super) volumes: Vec<(PathBuf, &'a str)>,
    /// This machine's in the overlay.
    pub(super) address: Ipv4Addr,
    /// What containers have addresses of.
    pub(super) subnet: Ipv4Net,
}

impl Job<'_> {
    /// Its environment. Nothing here may get into a command line or a log.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let env = self.record.spec.env.iter();
        env.map(|(name, value)| (name.as_str(), value.expose()))
    }
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

    /// How these are.
    pub(super) async fn see(
        &self,
        ids: &[InstanceId],
    ) -> anyhow::Result<BTreeMap<InstanceId, Seen>> {
        match self {
            Self::Units(units) => units.see(ids).await,
            Self::Processes(processes) => Ok(processes.see(ids)),
            Self::Containers(containers) => containers.see(ids).await,
        }
    }

    /// Starts one that does not run.
    pub(super) async fn start(&self, job: &Job<'_>) -> anyhow::Result<()> {
        match self {
            Self::Units(units) => units.start(job).await,
            Self::Processes(processes) => processes.start(job),
            Self::Containers(containers) => containers.start(job).await,
        }
    }

    /// Stops one, if it runs; it has ended when this has.
    pub(super) async fn stop(&self, id: InstanceId) -> anyhow::Result<()> {
        match self {
            Self::Units(units) => units.stop(id).await,
            Self::Processes(processes) => processes.stop(id).await,
            Self::Containers(containers) => containers.stop(id).await,
        }
    }

    /// Its last lines.
    pub(super) async fn logs(&self, id: InstanceId, lines: u32) -> anyhow::Result<Vec<String>> {
        match self {
            Self::Units(units) => units.logs(id, lines).await,
            Self::Processes(processes) => processes.logs(id, lines),
            Self::Containers(containers) => containers.logs(id, lines).await,
        }
    }
}

/// The last lines of a text, none of which is longer than an answer allows.
pub(super) fn last_lines(text: &str, lines: u32) -> Vec<String> {
    let all: Vec<&str> = text.lines().collect();
    let first = all.len().saturating_sub(lines as usize);
    all[first..].iter().map(|line| (*line).to_owned()).collect()
}
