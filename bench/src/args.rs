//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::contender::Contender;
use crate::measure::Pair;
use crate::measurement::Measurement;

/// Measures WireGuard data planes side by side, in network namespaces. Needs root.
#[derive(Debug, Parser)]
#[command(name = "ployz-bench", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Run the comparison
    Compare(Box<Compare>),
    /// Show a comparison again from its JSON file
    Show(Show),
    /// Set one contender up between two namespaces and keep it, for perf and for experiments
    #[command(name = "hold")]
    Keep(Keep),
    /// Set one contender up and run one measurement over and over, printing each result
    Repeat(Repeat),
}

#[derive(Args, Debug)]
pub(crate) struct Compare {
    /// Rounds; each visits every contender once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Run a single round of short measurements
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these measurements
    #[arg(long, value_delimiter = ',', value_name = "LIST", value_parser = Measurement::parse)]
    pub(crate) only: Vec<Measurement>,
    /// Leave the scale runs (peers, fanin, idle, handshakes) out
    #[arg(long)]
    pub(crate) no_scale: bool,
    /// How long to wait, in all, for other work on the machine to pause, in seconds
    #[arg(long, default_value_t = 120)]
    pub(crate) wait_quiet: u64,
    /// Repeat a measurement at most this often when other work disturbed it
    #[arg(long, default_value_t = 1)]
    pub(crate) repeat_disturbed: u32,
    /// Path of the JSON file, instead of bench/out
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) contenders: ContendersArguments,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The contenders, and the wire between them.
#[derive(Args, Debug)]
pub(crate) struct ContendersArguments {
    /// Only these contenders
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub(crate) contenders: Vec<String>,
    /// Additional contender: NAME=PROGRAM ARGUMENTS, with %i for the interface
    #[arg(long, value_name = "NAME=COMMAND", value_parser = Contender::parse)]
    pub(crate) also: Vec<Contender>,
    /// The ployzd to measure, instead of the one beside this program
    #[arg(long, value_name = "FILE")]
    pub(crate) ployzd: Option<PathBuf>,
    /// Outweigh other work on the machine, for one that is never quiet
    #[arg(long)]
    pub(crate) urgent: bool,
    /// Make the veth pair behave like a network card: no TSO and USO, but GRO
    #[arg(long)]
    pub(crate) card: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Output {
    /// Print the table as Markdown
    #[arg(long)]
    pub(crate) markdown: bool,
    /// Write SVG charts into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) charts: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Show {
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct Keep {
    pub(crate) contender: String,
    /// Peers configured beside the one that carries traffic
    #[arg(long, default_value_t = 0)]
    pub(crate) idle_peers: u32,
    #[command(flatten)]
    pub(crate) contenders: ContendersArguments,
}

#[derive(Args, Debug)]
pub(crate) struct Repeat {
    pub(crate) contender: String,
    pub(crate) measurement: Pair,
    /// How often
    #[arg(long, default_value_t = 5)]
    pub(crate) times: u32,
    /// Peers configured beside the one that carries traffic
    #[arg(long, default_value_t = 0)]
    pub(crate) idle_peers: u32,
    #[command(flatten)]
    pub(crate) contenders: ContendersArguments,
}
