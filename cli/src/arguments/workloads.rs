//! Flags about workloads.

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use ployz_api::{Name, PublishedPort, WorkloadName};

use super::values::{port, variable, volume};
use crate::completion;

#[derive(Debug, Subcommand)]
pub(crate) enum DeployCommand {
    /// Place a workload on a machine, which keeps it running
    Service(ServiceArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ServiceArguments {
    /// What to call it
    pub(crate) name: Name,
    /// Whose it is
    #[arg(long, default_value = "default")]
    pub(crate) namespace: Name,
    #[command(flatten)]
    pub(crate) program: ProgramArguments,
    /// Where: a machine's id, its name, or the unique beginning of either [default: the active one with the fewest workloads]
    #[arg(long, add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machine: Option<String>,
    /// A variable of its environment; may be said several times. Without a value it has the one that it has here, which no
    /// other user of this machine can see
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// A TCP port of the machine that leads to the container's; may be said several times
    #[arg(long, value_name = "PORT[:PORT]", value_parser = port)]
    pub(crate) publish: Vec<PublishedPort>,
    /// A directory that is kept, and where the workload finds it; may be said several times
    #[arg(long = "volume", value_name = "NAME:PATH", value_parser = volume)]
    pub(crate) volumes: Vec<(Name, String)>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ProgramArguments {
    /// A container of this image, on machines with runtime docker
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// A command for /bin/sh, on machines with runtime host
    #[arg(long, value_name = "CMD")]
    pub(crate) exec: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkloadCommand {
    /// Workloads, and where they are
    #[command(alias = "list")]
    Ls {
        /// Only those of this machine
        #[arg(long, add = ArgValueCompleter::new(completion::machines))]
        machine: Option<String>,
    },
    /// Everything about one workload but the values of its environment
    Inspect {
        /// namespace/name, or a name in the namespace default
        workload: WorkloadName,
    },
    /// What it has written
    Logs {
        /// namespace/name, or a name in the namespace default
        workload: WorkloadName,
        /// How many lines, of the last ones
        #[arg(long, default_value_t = 100)]
        lines: u32,
    },
    /// Stop a workload and forget it; its volumes stay
    Rm {
        /// namespace/name, or a name in the namespace default
        workload: WorkloadName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Say how a workload would be moved, and whether it can be
    Preview(MigrateArguments),
    /// Move a workload with its volumes to another machine
    Apply(MigrateArguments),
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArguments {
    /// namespace/name, or a name in the namespace default
    pub(crate) workload: WorkloadName,
    /// Where to: a machine's id, its name, or the unique beginning of either
    #[arg(long, value_name = "MACHINE", add = ArgValueCompleter::new(completion::machines))]
    pub(crate) to: String,
}
