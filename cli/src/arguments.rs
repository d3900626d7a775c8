//! Every flag there is.

mod access;
mod provision;
mod seeing;
mod service;
mod storage;
mod workloads;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::{ArgValueCompleter, Shell};
use ipnet::Ipv4Net;
use ployz_api::{
    InviteId, LabelChange, LabelKey, LabelValue, Name, RTT_COUNT_MAX, TTL_SECS_DEFAULT,
    TTL_SECS_MAX,
};

use crate::completion;

pub(crate) use access::{
    ContextCommand, CredentialCommand, CredentialCreateArguments, HostAndPort, ImportArguments,
};
pub(crate) use provision::{AddArguments, InitArguments, InstallSource, ProvisionArguments};
pub(crate) use seeing::{EventsArguments, OperationCommand};
pub(crate) use service::{DaemonCommand, InstallArguments, Runtime, ServiceMode};
pub(crate) use storage::{StorageArguments, StorageCommand};
pub(crate) use workloads::{
    DeployCommand, MigrateArguments, MigrateCommand, ServiceArguments, WorkloadCommand,
};

/// Explicit commands over machines.
#[derive(Debug, Parser)]
#[command(name = "ployzctl", version = ployz_install::own_version())]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) output: OutputArguments,
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to say what came of it.
#[derive(Debug, Args)]
pub(crate) struct OutputArguments {
    /// One JSON document on stdout, on failure as well
    #[arg(long, global = true, conflicts_with = "plain")]
    pub(crate) json: bool,
    /// One record a line, key=value
    #[arg(long, global = true)]
    pub(crate) plain: bool,
    /// Nothing on success (JSON is printed all the same)
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Do not say on stderr that an answer takes its time
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    /// Say on stderr whom is asked for what
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

/// Whom to ask.
#[derive(Debug, Args)]
pub(crate) struct ConnectionArguments {
    /// The local daemon's data directory, where its credential for root is
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PLOYZ_DATA_DIR",
        default_value = "/var/lib/ployz"
    )]
    pub(crate) data_dir: PathBuf,
    /// The context to use, or `local` for the daemon of this host [default: the current one]
    #[arg(long, global = true, value_name = "NAME", env = "PLOYZ_CONTEXT",
          add = ArgValueCompleter::new(completion::contexts))]
    pub(crate) context: Option<Name>,
    /// Where to dial instead of the context's endpoints; several are tried in order
    #[arg(long, global = true, value_name = "quic://HOST:PORT")]
    pub(crate) connect: Vec<HostAndPort>,
    /// Have this machine answer, through the one that is dialled
    #[arg(long, global = true, value_name = "MACHINE",
          add = ArgValueCompleter::new(completion::machines))]
    pub(crate) on: Option<String>,
    /// Where contexts are kept [default: ~/.config/ployz/config.toml]
    #[arg(long, global = true, value_name = "PATH", env = "PLOYZ_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// How long to wait for the answer: 500ms, 10s, 2m
    #[arg(long, global = true, value_name = "DUR", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// The flags that say whom to ask, and nothing else.
#[derive(Debug, Parser)]
pub(crate) struct OnlyConnection {
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
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

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TokenArguments {
    /// The token that `machine invite create` printed; other users of this machine can see it here
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Read the token from stdin
    #[arg(long)]
    pub(crate) token_stdin: bool,
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

#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// Make an invite for one machine
    Create {
        /// For how long it can be used
        #[arg(long, value_name = "SECS", default_value_t = TTL_SECS_DEFAULT,
              value_parser = clap::value_parser!(u64).range(1..=TTL_SECS_MAX))]
        ttl_secs: u64,
        /// What the machine will be like
        #[command(flatten)]
        terms: TermsArguments,
    },
    /// Invites that can be used
    List {
        /// Those that cannot be used any more as well
        #[arg(long)]
        all: bool,
    },
    /// Take an invite back
    Revoke {
        /// Which one
        invite_id: InviteId,
    },
    /// Join the network that an invite is for
    Import(TokenArguments),
}

/// What the network says of a machine that joins, whatever that says itself.
#[derive(Clone, Debug, Args)]
pub(crate) struct TermsArguments {
    /// What to call it
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Where it is
    #[arg(long)]
    pub(crate) region: Option<Name>,
    /// A label of it; may be said several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(LabelKey, LabelValue)>,
}

/// A key and a value.
fn label(text: &str) -> Result<(LabelKey, LabelValue), String> {
    let (key, value) = text.split_once('=').ok_or("say KEY=VALUE")?;
    let key = key.parse().map_err(|error| format!("{error}"))?;
    let value = value.parse().map_err(|error| format!("{error}"))?;
    Ok((key, value))
}

/// A number and us, ms, s, m, h or d.
fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let micros = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err("say a number and us, ms, s, m, h or d, as in 10s".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "no such number".to_owned())?;
    let span = number.checked_mul(micros).ok_or("no such span")?;
    Ok(Duration::from_micros(span))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_go_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "s", "-1s", "1y", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
