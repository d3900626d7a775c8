//! The flags about workloads.

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;
use ployz_api::{Name, PublishedPort, WorkloadName};

use super::values::{port, variable, volume};
use crate::completion;

#[derive(Debug, Subcommand)]
pub(crate) enum DeployCommand {
    /// Place a workload on a machine and keep it running
    Service(ServiceArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ServiceArguments {
    /// Name of the workload
    pub(crate) name: Name,
    /// Namespace of the workload
    #[arg(long, default_value = "default")]
    pub(crate) namespace: Name,
    #[command(flatten)]
    pub(crate) program: ProgramArguments,
    /// Machine: id, name, or a unique prefix of either [default: the active machine with the fewest workloads]
    #[arg(long, add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machine: Option<String>,
    /// Environment variable; repeatable. Without a value, the one of this environment is used, which no
    /// other user of this machine can see
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// TCP port of the machine that is forwarded to the container's; repeatable
    #[arg(long, value_name = "PORT[:PORT]", value_parser = port)]
    pub(crate) publish: Vec<PublishedPort>,
    /// Persistent directory and its path in the workload; repeatable
    #[arg(long = "volume", value_name = "NAME:PATH", value_parser = volume)]
    pub(crate) volumes: Vec<(Name, String)>,
    /// Run the command as root and without a sandbox; needs role admin
    #[arg(long)]
    pub(crate) privileged: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ProgramArguments {
    /// Container image to run, on machines with runtime docker
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Command for /bin/sh to run, on machines with runtime host
    #[arg(long, value_name = "CMD")]
    pub(crate) exec: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkloadCommand {
    /// List workloads and their machines
    #[command(alias = "list")]
    Ls {
        /// Show only workloads of this machine
        #[arg(long, add = ArgValueCompleter::new(completion::machines))]
        machine: Option<String>,
    },
    /// Show a workload, without the values of its environment
    Inspect {
        /// namespace/name, or a name in the namespace default
        workload: WorkloadName,
    },
    /// Show the output of a workload
    Logs {
        /// namespace/name, or a name in the namespace default
        workload: WorkloadName,
        /// Number of lines, counted from the end
        #[arg(long, default_value_t = 100)]
        lines: u32,
    },
    /// Stop and remove a workload; its volumes stay
    Rm {
        /// namespace/name, or a name in the namespace default
        workload: WorkloadName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Show how a workload would move, and whether it can
    Preview(MigrateArguments),
    /// Move a workload with its volumes to another machine
    Apply(MigrateArguments),
}

#[derive(Debug, Args)]
pub(crate) struct MigrateArguments {
    /// namespace/name, or a name in the namespace default
    pub(crate) workload: WorkloadName,
    /// Target machine: id, name, or a unique prefix of either
    #[arg(long, value_name = "MACHINE", add = ArgValueCompleter::new(completion::machines))]
    pub(crate) to: String,
}
