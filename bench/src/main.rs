//! Measures WireGuard data planes side by side.
//!
//! `compare` puts every contender between the same two network namespaces, one after the other and
//! round after round, and reports medians with their spread. `scripts/bench` builds everything and
//! runs it. See `docs/benchmarks.md` for what the numbers mean.

mod args;
mod clock;
mod compare;
mod console;
mod contender;
mod contenders;
mod daemon;
mod host;
mod idle_wait;
mod inner;
mod iperf;
mod keep;
mod keys;
mod leftovers;
mod measure;
mod measurement;
mod metric;
mod netns;
mod outcome;
mod ping;
mod priority;
mod process;
mod record;
mod report;
mod scale;
mod swarm;
mod topology;
mod tunnel;
mod udp;
mod usage;
mod wgconf;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser as _;

use crate::args::{Action, Arguments};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = run(&arguments.action);
    leftovers::sweep();
    priority::restore();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(action: &Action) -> Result<()> {
    if let Action::Show(arguments) = action {
        return report::show(&report::json::read(&arguments.file)?, &arguments.output);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces need root");
    }
    leftovers::watch_signals()?;
    leftovers::remove_stale()?;
    match action {
        Action::Compare(arguments) => compare::compare(arguments),
        Action::Keep(arguments) => keep::keep(arguments),
        Action::Repeat(arguments) => keep::repeat(arguments),
        Action::Show(_) => Ok(()),
    }
}
