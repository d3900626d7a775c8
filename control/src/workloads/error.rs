//! Failures of workloads, and of what runs and keeps them.

use std::io;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use nix::errno::Errno;
use ployz_api::{Failure, Name, WorkloadName};

use crate::host::error::{HostError, with_causes};
use crate::network::NetworkError;

/// A failure to run a workload, or to keep or move what it has.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkloadError {
    /// A file, or a program of the host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Another machine, which a workload comes from.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The runtime of this machine does not run such programs.
    #[error("runtime {runtime} runs no {programs}")]
    Runtime {
        runtime: &'static str,
        programs: &'static str,
    },
    /// A command of the host cannot be started.
    #[error("cannot start the command: {0}")]
    Start(io::Error),
    /// A command of the host has ended before it could be recognised.
    #[error("the command ended at once")]
    EndedAtOnce,
    /// The launcher has not got what it needs.
    #[error("cannot read what is to be launched: {0}")]
    Launch(String),
    /// The system refuses what a sandbox takes.
    #[error("cannot {action}: {cause}")]
    Sandbox { action: &'static str, cause: Errno },
    /// The container engine is not there.
    #[error("no container engine answers at {socket}: {cause}")]
    NoEngine { socket: PathBuf, cause: String },
    /// The container engine refused a call.
    #[error("the container engine cannot {action}: {cause}")]
    Engine { action: &'static str, cause: String },
    /// An image is not here yet; the next attempt may find it.
    #[error("image {0} is being fetched")]
    FetchingImage(String),
    /// The machine's subnet has no room for containers.
    #[error("subnet {0} has no address for the bridge of containers")]
    Subnet(Ipv4Net),
    /// The host's firewall keeps the overlay from containers.
    #[error("cannot let the overlay reach containers: {0}")]
    Firewall(HostError),
    /// The copy of a volume has failed.
    #[error("volume {volume} of {workload}: {cause}")]
    Volume {
        volume: Name,
        workload: WorkloadName,
        cause: Box<Self>,
    },
    /// A path in a volume cannot be followed, or its file is not what it was.
    #[error("{path:?} {problem}")]
    Path { path: String, problem: &'static str },
    /// The machine that has a volume answered with a failure of its own.
    #[error("{0}")]
    Answered(Failure),
    /// The machine that has a volume does not send it.
    #[error("the other machine does not send the volume: {0}")]
    Unsent(String),
    /// The task that copies volumes has ended before its work was done.
    #[error("the copy has failed: {0}")]
    CopyTask(tokio::task::JoinError),
    /// A workload is asked for that another machine runs.
    #[error("{0} does not run on this machine")]
    NotHere(WorkloadName),
    /// Another request is moving the workload.
    #[error("{0} is being moved already")]
    Moving(WorkloadName),
    /// A volume is asked for while its workload may still write to it.
    #[error("{0} has not ended here")]
    NotPaused(WorkloadName),
    /// A workload has no volume of this name.
    #[error("{workload} has no volume {volume}")]
    NoVolume {
        workload: WorkloadName,
        volume: Name,
    },
}

impl WorkloadError {
    /// A path in a volume, and what is wrong with it.
    pub(super) fn path(path: &str, problem: &'static str) -> Self {
        Self::Path {
            path: path.to_owned(),
            problem,
        }
    }

    /// A refused call of the container engine, for `map_err`.
    pub(super) fn engine(action: &'static str) -> impl FnOnce(bollard::errors::Error) -> Self {
        move |error| Self::Engine {
            action,
            cause: with_causes(&error),
        }
    }
}
