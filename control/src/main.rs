//! `ployzd`: the daemon.

mod admission;
mod authority;
mod clock;
mod config;
mod daemon;
mod dataplane;
mod events;
mod files;
mod host;
mod identity;
mod installation;
mod interface;
mod listing;
mod logging;
mod membership;
mod metrics;
mod nats;
mod network;
mod news;
mod operations;
mod overlay;
mod places;
mod program;
mod reflector;
mod refusals;
mod relay;
mod removal;
mod requests;
mod run;
mod server;
#[cfg(test)]
mod simulation;
mod storage;
mod store;
mod systemd;
#[cfg(test)]
mod testkit;
mod tls;
mod update;
mod watchdog;
mod workloads;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use config::Config;

/// A userspace WireGuard overlay on io_uring.
#[derive(Debug, Parser)]
#[command(name = "ployzd", version = ployz_install::own_version())]
struct Arguments {
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
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run(*arguments),
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

fn run(arguments: config::Arguments) -> anyhow::Result<()> {
    let config = Config::load(arguments)?;
    logging::start(config.log_format)?;
    run::run(config)
}

/// One line, the whole chain of causes.
#[expect(
    clippy::print_stderr,
    reason = "the last word of a program that failed"
)]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
