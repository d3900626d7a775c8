//! The flags that every command takes.
//!
//! Completion reads them from an unfinished command line. They therefore know nothing of completion: `Arguments` adds
//! it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use ployz_api::Name;

use super::values::{HostAndPort, duration};

/// The flags about output.
#[derive(Debug, Args)]
pub(crate) struct OutputArguments {
    /// Print one JSON document on stdout, also on failure
    #[arg(long, global = true, conflicts_with = "plain")]
    pub(crate) json: bool,
    /// Print one record per line, as key=value
    #[arg(long, global = true)]
    pub(crate) plain: bool,
    /// Print nothing on success (JSON is printed all the same)
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Do not report progress on stderr
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    /// Report every request and its destination on stderr
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

/// The flags that choose the daemon to ask.
#[derive(Debug, Args)]
pub(crate) struct ConnectionArguments {
    /// Data directory of the local daemon, which holds root's credential
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PLOYZ_DATA_DIR",
        default_value = "/var/lib/ployz"
    )]
    pub(crate) data_dir: PathBuf,
    /// Context to use, or `local` for the daemon of this host [default: the current context]
    #[arg(long, global = true, value_name = "NAME", env = "PLOYZ_CONTEXT")]
    pub(crate) context: Option<Name>,
    /// Endpoint to connect to instead of the context's; repeatable, tried in order
    #[arg(long, global = true, value_name = "quic://HOST:PORT")]
    pub(crate) connect: Vec<HostAndPort>,
    /// Machine that answers the request, reached through the daemon that is dialled
    #[arg(long, global = true, value_name = "MACHINE")]
    pub(crate) on: Option<String>,
    /// File with the contexts [default: ~/.config/ployz/config.toml]
    #[arg(long, global = true, value_name = "PATH", env = "PLOYZ_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Time to wait for the answer, such as 500ms, 10s or 2m
    #[arg(long, global = true, value_name = "DUR", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// The flags that choose the daemon to ask, and nothing else.
#[derive(Debug, Parser)]
pub(crate) struct OnlyConnection {
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
}
