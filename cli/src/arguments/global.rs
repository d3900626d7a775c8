//! The flags that every command takes.
//!
//! Completion reads them from an unfinished command line. They therefore know nothing of completion: `Arguments` adds it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use ployz_api::Name;

use super::values::{HostAndPort, duration};

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
    #[arg(long, global = true, value_name = "NAME", env = "PLOYZ_CONTEXT")]
    pub(crate) context: Option<Name>,
    /// Where to dial instead of the context's endpoints; several are tried in order
    #[arg(long, global = true, value_name = "quic://HOST:PORT")]
    pub(crate) connect: Vec<HostAndPort>,
    /// Have this machine answer, through the one that is dialled
    #[arg(long, global = true, value_name = "MACHINE")]
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
