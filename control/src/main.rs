//! `ployzd`: the daemon.

mod dataplane;
mod metrics;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A userspace WireGuard overlay on io_uring.
#[derive(Debug, Parser)]
#[command(name = "ployzd", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the data plane alone, in the foreground; set it up with `wg` or --config.
    Dataplane(dataplane::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging();
    let result = match arguments.command {
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
fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("PLOYZ_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// One line, the whole chain of causes.
#[expect(
    clippy::print_stderr,
    reason = "the last word of a program that failed"
)]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
