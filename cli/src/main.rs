//! `ployzctl`: the operator's command line.

mod arguments;
mod clock;
mod commands;
mod completion;
mod connection;
mod contexts;
mod outcome;
mod printer;
mod provision;
mod table;
mod terminal;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use clap_complete::CompleteEnv;
use ployz_api::{Code, Failure};

use arguments::{Arguments, Command};
use commands::manual::COMPLETE;
use connection::Connection;
use outcome::Outcome;
use printer::{Notes, Printer};

/// Memory is wiped when it is freed: tokens, credentials and the secrets of workloads pass through it.
#[global_allocator]
static ALLOCATOR: ployz_memory::Wiping = ployz_memory::Wiping::new();

fn main() -> ExitCode {
    CompleteEnv::with_factory(Arguments::command)
        .var(COMPLETE)
        .complete();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misused(&error),
    };
    let printer = Printer::new(&arguments.output);
    let connection = Connection::new(arguments.connection, Notes::new(&arguments.output));
    let result = carry_out(&connection, &printer, arguments.command);
    printer.print(&result);
    ExitCode::from(exit_status(&result))
}

fn carry_out(connection: &Connection, printer: &Printer, command: Command) -> Outcome {
    match command {
        Command::Status(status) => commands::status::run(connection, status.interface.as_deref()),
        Command::Mesh(command) => commands::mesh::run(connection, command),
        Command::Deploy(command) => commands::workload::deploy(connection, command),
        Command::Migrate(command) => commands::migrate::run(connection, command),
        Command::Workload(command) => commands::workload::run(connection, command),
        Command::Doctor { machine } => commands::doctor::run(connection, machine),
        Command::Events(arguments) => commands::events::run(connection, printer, &arguments),
        Command::Operation(command) => commands::operation::run(connection, printer, &command),
        Command::Context(command) => commands::context::run(connection, command),
        Command::Credential(command) => commands::credential::run(connection, command),
        Command::Machine(command) => commands::machine::run(connection, printer, command),
        Command::Daemon(command) => commands::daemon::run(command),
        Command::Completion { shell } => commands::manual::completion(shell),
        Command::Man { output } => commands::manual::man(output.as_deref()),
    }
}

/// A command line with `--json` is answered in JSON even if the rest of it is wrong.
fn misused(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args().any(|word| word == "--json");
    if !wants_json || !error.use_stderr() {
        error.exit();
    }
    let text = error.to_string();
    let message = text.trim().trim_start_matches("error: ");
    let failure = Failure::new(Code::InvalidArgument, message).hint("ployzctl --help");
    let result = Err(failure);
    Printer::json().print(&result);
    ExitCode::from(exit_status(&result))
}

/// 0 done; 1 refused or failed, or some of it; 2 usage; 3 not reachable.
fn exit_status(result: &Outcome) -> u8 {
    match result {
        Ok(success) => (success.has_failed || success.partial.is_some()).into(),
        Err(failure) => failure.code.exit_status(),
    }
}
