//! `ployzd`: the daemon.

mod authority;
mod clock;
mod config;
mod daemon;
mod dataplane;
mod events;
mod files;
mod host;
mod identity;
mod membership;
mod metrics;
mod nats;
mod network;
mod operations;
mod overlay;
mod places;
mod relay;
mod requests;
mod run;
mod server;
mod store;
mod tls;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A userspace WireGuard overlay on io_uring.
#[derive(Debug, Parser)]
#[command(name = "ployzd", version)]
struct Arguments {
    /// Log as JSON, one object a line
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: data plane, control task, management.
    Run(Box<config::Arguments>),
    /// Run the data plane alone, in the foreground; set it up with `wg` or --config.
    Dataplane(dataplane::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging(arguments.log_json);
    let result = match arguments.command {
        Command::Run(arguments) => run::run(*arguments),
        Command::Dataplane(arguments) => dataplane::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// To stderr: stdout is for what a program waits for. `PLOYZ_LOG` selects, as in `PLOYZ_LOG=debug`.
/// What the client of the store has to say comes through `store`, as news and not as alarm.
fn start_logging(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PLOYZ_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,async_nats=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.init();
    }
}

/// One line, the whole chain of causes.
#[expect(
    clippy::print_stderr,
    reason = "the last word of a program that failed"
)]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
