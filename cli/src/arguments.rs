//! Every flag there is.

mod access;
pub(crate) mod global;
mod invite;
mod provision;
mod seeing;
mod service;
mod storage;
mod target;
mod values;
mod workloads;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::{ArgValueCompleter, Shell};
use ipnet::Ipv4Net;
use ployz_api::{LabelChange, Name, RTT_COUNT_MAX};

use global::{ConnectionArguments, OutputArguments};
use values::duration;

use crate::completion;

pub(crate) use access::{
    ContextCommand, CredentialCommand, CredentialCreateArguments, ImportArguments,
};
pub(crate) use invite::{InviteCommand, TermsArguments, TokenArguments};
pub(crate) use provision::{AddArguments, InitArguments, InstallSource, ProvisionArguments};
pub(crate) use seeing::{EventsArguments, OperationCommand};
pub(crate) use service::{DaemonCommand, InstallArguments, Runtime, ServiceMode};
pub(crate) use storage::{StorageArguments, StorageCommand};
pub(crate) use target::Target;
pub(crate) use workloads::{
    DeployCommand, MigrateArguments, MigrateCommand, ServiceArguments, WorkloadCommand,
};

/// Explicit commands over machines.
#[derive(Debug, Parser)]
#[command(
    name = "ployzctl",
    version,
    mut_arg("context", |arg| arg.add(ArgValueCompleter::new(completion::contexts))),
    mut_arg("on", |arg| arg.add(ArgValueCompleter::new(completion::machines)))
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) output: OutputArguments,
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What the daemon is and how it is
    Status(StatusArguments),
    /// The network that this machine is in, or is to be in
    #[command(subcommand, alias = "network")]
    Mesh(MeshCommand),
    /// The machines of the network
    #[command(subcommand)]
    Machine(MachineCommand),
    /// Place workloads on machines
    #[command(subcommand)]
    Deploy(DeployCommand),
    /// Move workloads between machines
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// What machines run
    #[command(subcommand)]
    Workload(WorkloadCommand),
    /// What is wrong here, or with this machine and another one; exit 1 if something is
    Doctor {
        /// The other machine: its id, its name, or the unique beginning of either
        #[arg(add = ArgValueCompleter::new(completion::machines))]
        machine: Option<String>,
    },
    /// Who did what, and when
    Events(EventsArguments),
    /// Long work, and how far it is
    #[command(subcommand)]
    Operation(OperationCommand),
    /// The networks that this client knows
    #[command(subcommand)]
    Context(ContextCommand),
    /// Whom the network lets in from afar
    #[command(subcommand)]
    Credential(CredentialCommand),
    /// The daemon of this machine, as a service of the system
    #[command(subcommand)]
    Daemon(DaemonCommand),
    /// A script by which a shell completes commands, machines and contexts: `source <(ployzctl completion bash)`
    Completion {
        /// Which shell
        shell: Shell,
    },
    /// The manual
    Man {
        /// Write a page for every command into this directory [default: one page to stdout]
        #[arg(short, long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Ask the data plane of this interface instead, as run by `ployzd dataplane`
    #[arg(short, long)]
    pub(crate) interface: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MeshCommand {
    /// Found a network here, and print the first invite to it
    Init(MeshInitArguments),
    /// Draw a network up here, to be started later
    Create(MeshInitArguments),
    /// Take part in the network, again or for the first time
    Start,
    /// Take part no more, until it is started again
    Stop {
        /// Although the machine is active
        #[arg(long)]
        force: bool,
    },
    /// Forget the network for good
    Destroy {
        /// Only if it is called that
        name: Option<Name>,
        /// Whatever the others think: take away what is here
        #[arg(long)]
        force: bool,
    },
    /// Join the network that an invite is for
    Join(TokenArguments),
    /// The networks that this machine knows of
    #[command(alias = "ls")]
    List,
    /// The network, as seen from here
    Status {
        /// Only if it is called that
        name: Option<Name>,
    },
    /// Exit 0 if data plane, control and store all work, 1 if not
    Ready,
    /// This machine's own record
    SelfRecord,
}

#[derive(Debug, Args)]
pub(crate) struct MeshInitArguments {
    /// What to call it
    #[arg(default_value = "ployz")]
    pub(crate) name: Name,
    /// Read the name from stdin
    #[arg(long, conflicts_with = "name")]
    pub(crate) name_stdin: bool,
    /// Where subnets come from [default: 10.101.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub(crate) cluster_cidr: Option<Ipv4Net>,
    /// How large each machine's subnet is [default: 24]
    #[arg(long, value_name = "BITS")]
    pub(crate) subnet_prefix_len: Option<u8>,
    /// WireGuard's UDP port on this machine [default: what the daemon was started with]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) wg_port: Option<u16>,
    /// Where others reach this machine's WireGuard; may be said several times, the best first [default: its addresses]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) endpoint: Vec<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArguments {
    /// Their ids, names, or the unique beginnings of either [default: all machines]
    #[arg(add = ArgValueCompleter::new(completion::machines), value_name = "MACHINE")]
    pub(crate) machines: Vec<String>,
    /// The version that they are to have [default: the latest that is released]
    #[arg(long)]
    pub(crate) version: Option<String>,
    /// Watch the first N for half a minute before the others follow
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) canary: Option<u32>,
    /// Leave the new version where it is not healthy
    #[arg(long)]
    pub(crate) no_rollback: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    /// All machines
    #[command(alias = "list")]
    Ls(ListArguments),
    /// Everything about one machine
    Inspect {
        /// Its id, its name, or the unique beginning of either
        #[arg(add = ArgValueCompleter::new(completion::machines))]
        machine: String,
    },
    /// Call a machine something else
    Rename {
        /// Its id, its name, or the unique beginning of either
        #[arg(add = ArgValueCompleter::new(completion::machines))]
        machine: String,
        /// What to call it
        name: Name,
    },
    /// Set labels of a machine, or take them away
    Label {
        /// Its id, its name, or the unique beginning of either
        #[arg(add = ArgValueCompleter::new(completion::machines))]
        machine: String,
        /// key=value to set one, key- to take it away
        #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
        labels: Vec<LabelChange>,
    },
    /// How far machines are from one another
    Rtt(RttArguments),
    /// Let workloads be placed on a machine
    Activate {
        /// Its id, its name, or the unique beginning of either
        #[arg(add = ArgValueCompleter::new(completion::machines))]
        machine: String,
    },
    /// Place no more workloads on a machine; those that it has keep running
    Drain(DrainArguments),
    /// Park a machine that holds no workloads
    Standby(StandbyArguments),
    /// Make a machine of a bare host, and found the network there if there is none
    Init(Box<InitArguments>),
    /// Make machines of bare hosts
    Add(Box<AddArguments>),
    /// Bring machines to another version, one after the other, without breaking connections
    Update(UpdateArguments),
    /// Which machines hold the store
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Take a machine out of the network
    Rm(RemoveArguments),
    /// Letting machines in
    #[command(subcommand)]
    Invite(InviteCommand),
}

#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    /// Its id, its name, or the unique beginning of either
    #[arg(add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machine: String,
    /// Wait until it holds no workload any more, for as long as --timeout says
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StandbyArguments {
    /// Its id, its name, or the unique beginning of either
    #[arg(add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machine: String,
    /// Although it holds workloads, which keep running
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Its id, its name, or the unique beginning of either
    #[arg(add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machine: String,
    /// Do not ask the machine itself to clean up: it is gone, or cannot be reached
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not ask whether this is meant
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ListArguments {
    /// More columns
    #[arg(long)]
    pub(crate) wide: bool,
    /// Again and again
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Which pairs, and how to show them.
#[derive(Debug, Args)]
pub(crate) struct RttArguments {
    /// Only pairs in which one of these takes part: an id, a name, or the unique beginning of either
    #[arg(add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machines: Vec<String>,
    /// Again and again
    #[arg(long)]
    pub(crate) watch: bool,
    /// Show only what so many new round trips of every pair say [default: 20 more of each, and those that are known]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(RTT_COUNT_MAX)))]
    pub(crate) count: Option<u16>,
    /// Show medians, machines by machines
    #[arg(long)]
    pub(crate) matrix: bool,
    /// Fail if 99 % of a pair's round trips are not within this time
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) max_p99: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_go_together() {
        Arguments::command().debug_assert();
    }
}
