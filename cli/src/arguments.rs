//! Every flag there is.

use clap::{Args, Parser, Subcommand};

/// Explicit commands over machines.
#[derive(Debug, Parser)]
#[command(name = "ployzctl", version)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) output: OutputArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to say what came of it.
#[derive(Debug, Args)]
pub(crate) struct OutputArguments {
    /// One JSON document on stdout, on failure as well.
    #[arg(long, global = true, conflicts_with = "plain")]
    pub(crate) json: bool,
    /// key=value.
    #[arg(long, global = true)]
    pub(crate) plain: bool,
    /// Nothing on success (JSON is printed all the same).
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What a running data plane is like: backend, offloads, drops.
    Status(StatusArguments),
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// The interface to ask about [default: the only one there is]
    #[arg(short, long)]
    pub(crate) interface: Option<String>,
}
