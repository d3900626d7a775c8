//! Every flag there is.

mod access;
mod events;
pub(crate) mod global;
mod invite;
mod provision;
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
pub(crate) use events::{EventsArguments, OperationCommand};
pub(crate) use invite::{InviteCommand, TermsArguments, TokenArguments};
pub(crate) use provision::{AddArguments, InitArguments, InstallSource, ProvisionArguments};
pub(crate) use service::{DaemonCommand, InstallArguments, Runtime, ServiceMode};
pub(crate) use storage::{StorageArguments, StorageCommand};
pub(crate) use target::Target;
pub(crate) use workloads::{
    DeployCommand, MigrateArguments, MigrateCommand, ServiceArguments, WorkloadCommand,
};

/// Operate a network of machines.
#[derive(Debug, Parser)]
#[command(
    name = "ployzctl",
    version = ployz_install::own_version(),
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
    /// Show the daemon's version, backend, network and state
    Status(StatusArguments),
    /// Manage the network of this machine
    #[command(subcommand, alias = "network")]
    Mesh(MeshCommand),
    /// Manage the machines of the network
    #[command(subcommand)]
    Machine(MachineCommand),
    /// Place workloads on machines
    #[command(subcommand)]
    Deploy(DeployCommand),
    /// Move workloads between machines
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Manage workloads
    #[command(subcommand)]
    Workload(WorkloadCommand),
    /// Diagnose this machine, or its connection to another one; exit 1 if a check fails
    Doctor {
        /// The other machine: its id, its name, or a unique prefix of either
        #[arg(add = ArgValueCompleter::new(completion::machines))]
        machine: Option<String>,
    },
    /// Show who changed what, and when
    Events(EventsArguments),
    /// Show long-running operations and their progress
    #[command(subcommand)]
    Operation(OperationCommand),
    /// Manage the contexts: the networks that this client knows
    #[command(subcommand)]
    Context(ContextCommand),
    /// Manage the credentials of remote operators
    #[command(subcommand)]
    Credential(CredentialCommand),
    /// Install or remove the daemon as a system service of this machine
    #[command(subcommand)]
    Daemon(DaemonCommand),
    /// Print a completion script for a shell: `source <(ployzctl completion bash)`
    Completion {
        /// Shell to print the script for
        shell: Shell,
    },
    /// Print the manual
    Man {
        /// Write one page per command into this directory [default: one page to stdout]
        #[arg(short, long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Ask the data plane of this interface, run by `ployzd dataplane`, instead of the daemon
    #[arg(short, long)]
    pub(crate) interface: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MeshCommand {
    /// Found a network on this machine and print its first invite
    Init(MeshInitArguments),
    /// Prepare a network on this machine, to be started later
    Create(MeshInitArguments),
    /// Start participating in the network
    Start,
    /// Stop participating until the next start
    Stop {
        /// Stop even if the machine is active
        #[arg(long)]
        force: bool,
    },
    /// Remove the network from this machine for good
    Destroy {
        /// Name of the network, as a safeguard
        name: Option<Name>,
        /// Remove it even if the other machines are not told
        #[arg(long)]
        force: bool,
    },
    /// Join the network of an invite
    Join(TokenArguments),
    /// List the networks of this machine
    #[command(alias = "ls")]
    List,
    /// Show the network as seen from this machine
    Status {
        /// Name of the network, as a safeguard
        name: Option<Name>,
    },
    /// Exit 0 if data plane, control plane and store work, 1 otherwise
    Ready,
    /// Show this machine's own record
    SelfRecord,
}

#[derive(Debug, Args)]
pub(crate) struct MeshInitArguments {
    /// Name of the network
    #[arg(default_value = "ployz")]
    pub(crate) name: Name,
    /// Read the name from stdin
    #[arg(long, conflicts_with = "name")]
    pub(crate) name_stdin: bool,
    /// Address range that machines get their subnets from [default: 10.101.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub(crate) cluster_cidr: Option<Ipv4Net>,
    /// Prefix length of each machine's subnet [default: 24]
    #[arg(long, value_name = "BITS")]
    pub(crate) subnet_prefix_len: Option<u8>,
    /// WireGuard's UDP port on this machine [default: the daemon's setting]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) wg_port: Option<u16>,
    /// Endpoint at which other machines reach this machine's WireGuard; repeatable, best first [default: its addresses]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) endpoint: Vec<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArguments {
    /// Ids, names, or unique prefixes of either [default: all machines]
    #[arg(add = ArgValueCompleter::new(completion::machines), value_name = "MACHINE")]
    pub(crate) machines: Vec<String>,
    /// Version to install [default: the latest release]
    #[arg(long)]
    pub(crate) version: Option<String>,
    /// Watch the first N machines for half a minute before the others follow
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) canary: Option<u32>,
    /// Keep the new version on a machine that is not healthy
    #[arg(long)]
    pub(crate) no_rollback: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    /// List the machines
    #[command(alias = "list")]
    Ls(ListArguments),
    /// Show everything about one machine
    Inspect {
        /// Id, name, or a unique prefix of either
        #[arg(add = ArgValueCompleter::new(completion::machines))]
        machine: String,
    },
    /// Rename a machine
    Rename {
        /// Id, name, or a unique prefix of either
        #[arg(add = ArgValueCompleter::new(completion::machines))]
        machine: String,
        /// New name
        name: Name,
    },
    /// Set or remove labels of a machine
    Label {
        /// Id, name, or a unique prefix of either
        #[arg(add = ArgValueCompleter::new(completion::machines))]
        machine: String,
        /// KEY=VALUE sets a label, KEY- removes it
        #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
        labels: Vec<LabelChange>,
    },
    /// Measure round-trip times between machines
    Rtt(RttArguments),
    /// Allow workloads to be placed on a machine
    Activate {
        /// Id, name, or a unique prefix of either
        #[arg(add = ArgValueCompleter::new(completion::machines))]
        machine: String,
    },
    /// Place no more workloads on a machine; its present ones keep running
    Drain(DrainArguments),
    /// Take a machine without workloads out of service
    Standby(StandbyArguments),
    /// Turn a bare host into a machine, founding the network if there is none
    Init(Box<InitArguments>),
    /// Turn bare hosts into machines
    Add(Box<AddArguments>),
    /// Update machines to another version, one by one, without breaking connections
    Update(UpdateArguments),
    /// Choose the machines that hold the store
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Remove a machine from the network
    Rm(RemoveArguments),
    /// Manage invites for new machines
    #[command(subcommand)]
    Invite(InviteCommand),
}

#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    /// Id, name, or a unique prefix of either
    #[arg(add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machine: String,
    /// Wait until the machine holds no workloads, at most as long as --timeout
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StandbyArguments {
    /// Id, name, or a unique prefix of either
    #[arg(add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machine: String,
    /// Proceed even if the machine holds workloads, which keep running
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Id, name, or a unique prefix of either
    #[arg(add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machine: String,
    /// Do not contact the machine to clean up: for one that is lost or unreachable
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ListArguments {
    /// Show more columns
    #[arg(long)]
    pub(crate) wide: bool,
    /// Repeat until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
}

/// The pairs to measure, and their presentation.
#[derive(Debug, Args)]
pub(crate) struct RttArguments {
    /// Show only pairs with one of these machines: an id, a name, or a unique prefix of either
    #[arg(add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machines: Vec<String>,
    /// Repeat until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
    /// Measure N new round trips per pair and show only these [default: 20, added to the known ones]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(RTT_COUNT_MAX)))]
    pub(crate) count: Option<u16>,
    /// Show a matrix of medians
    #[arg(long)]
    pub(crate) matrix: bool,
    /// Exit 1 if the 99th percentile of a pair is above this duration
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) max_p99: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_go_together() {
        Arguments::command().debug_assert();
    }

    /// What a daemon's refusal tells an operator to run is in its sources, and is something that can be run.
    #[test]
    fn every_command_that_a_daemon_tells_of_exists_with_its_flags() {
        let mut command = Arguments::command();
        // Flags of all commands are in each of them then.
        command.build();
        let control = Path::new(env!("CARGO_MANIFEST_DIR")).join("../control");
        let mut count = 0;
        for file in ["src", "core/src", "api/src"].map(|it| control.join(it)) {
            for source in sources(&file) {
                let text = std::fs::read_to_string(&source).unwrap();
                let code = text.lines().filter(|line| !line.trim().starts_with("//"));
                for said in code.flat_map(|line| line.split("ployzctl ").skip(1)) {
                    let said = said.split(['"', '`', ';', ',', '(']).next().unwrap();
                    if let Err(word) = check(&command, said) {
                        panic!("{}: ployzctl {said}: {word} is not known", source.display());
                    }
                    count += 1;
                }
            }
        }
        assert!(count > 50, "{count} are not all");
    }

    fn check<'a>(mut command: &clap::Command, said: &'a str) -> Result<(), &'a str> {
        let mut is_name = true;
        for word in said.split_whitespace() {
            if let Some(flag) = word.strip_prefix("--") {
                // Of a flag in front of the command, the value would be taken for one.
                is_name = false;
                let mut flags = command.get_arguments().filter_map(|it| it.get_long());
                if !flags.any(|it| it == flag) {
                    return Err(word);
                }
            } else if is_name && command.has_subcommands() {
                command = command.find_subcommand(word).ok_or(word)?;
            } else {
                is_name = false;
            }
        }
        // A group of commands is none.
        let is_one = !command.has_subcommands() || said.starts_with("--");
        if is_one { Ok(()) } else { Err("the rest") }
    }

    fn sources(directory: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let below = |path: PathBuf| {
            if path.is_dir() {
                return sources(&path);
            }
            let is_rust = path.extension().is_some_and(|it| it == "rs");
            is_rust.then_some(path).into_iter().collect()
        };
        paths.flat_map(below).collect()
    }
}
