//! `ployzctl`: the operator's command line.

mod arguments;
mod commands;
mod connection;
mod contexts;
mod outcome;
mod printer;
mod table;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command};
use connection::Connection;
use printer::Printer;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let printer = Printer::new(&arguments.output);
    let connection = Connection::new(arguments.connection);
    let result = match arguments.command {
        Command::Status(status) => commands::status::run(&connection, status.interface.as_deref()),
        Command::Mesh(command) => commands::mesh::run(&connection, command),
        Command::Context(command) => commands::context::run(&connection, command),
        Command::Credential(command) => commands::credential::run(&connection, command),
        Command::Machine(command) => commands::machine::run(&connection, command),
    };
    printer.print(&result);
    ExitCode::from(result.map_or_else(|failure| failure.code.exit_status(), |_| 0))
}
