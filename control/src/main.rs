//! `ployzd`: the daemon.

mod daemon;
mod host;
mod machine;
mod metrics;
mod nats;
mod network;
mod overlay;
mod requests;
mod server;
mod services;
mod store;
#[cfg(test)]
mod testkit;
mod workloads;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use host::config::{self, Config};
use host::logging;
use overlay::standalone;
use workloads::launch;

/// Memory is wiped when it is freed: the libraries for JSON, certificates, TLS and the store have copies of keys too.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: ployz_memory::Wiping = ployz_memory::Wiping::new();

/// The same, and below it one that looks at what is freed.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: ployz_memory::Wiping<ployz_memory::Watching> =
    ployz_memory::Wiping::over(ployz_memory::Watching::new());

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
    Dataplane(standalone::Arguments),
    /// Become the command of a workload, which is described on stdin; the daemon starts it.
    #[command(hide = true)]
    Launch(launch::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run(*arguments),
        Command::Dataplane(arguments) => standalone::run(arguments),
        Command::Launch(arguments) => launch::run(&arguments).map_err(Into::into),
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
    daemon::run::run(config)
}

/// One line: every error names its cause.
#[expect(
    clippy::print_stderr,
    reason = "the last word of a program that failed"
)]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error}");
}
