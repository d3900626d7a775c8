//! `ployzctl`: the operator's command line.

mod arguments;
mod commands;
mod outcome;
mod printer;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command};
use printer::Printer;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let printer = Printer::new(&arguments.output);
    let result = match &arguments.command {
        Command::Status(status) => commands::status::run(status),
    };
    printer.print(&result);
    ExitCode::from(result.map_or_else(|failure| failure.code.exit_status(), |_| 0))
}
