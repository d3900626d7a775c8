//! The flags of `ployzctl events` and `ployzctl operation`.

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use ployz_api::{EVENTS_LIMIT_DEFAULT, EVENTS_LIMIT_MAX, OperationId};

use crate::completion;

#[derive(Debug, Args)]
pub(crate) struct EventsArguments {
    /// Keep printing new events
    #[arg(long)]
    pub(crate) follow: bool,
    /// Number of past events to show
    #[arg(long, value_name = "N", default_value_t = EVENTS_LIMIT_DEFAULT,
          value_parser = clap::value_parser!(u32).range(..=i64::from(EVENTS_LIMIT_MAX)))]
    pub(crate) limit: u32,
    /// Show the events that one machine has written: id, name, or unique prefix of either
    #[arg(long, value_name = "MACHINE", add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machine: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List the operations of the last 30 days
    #[command(alias = "ls")]
    List,
    /// Show an operation with its stages
    Get {
        /// Id of the operation
        operation_id: OperationId,
    },
    /// Follow an operation until it ends; exit 1 if it fails
    Watch {
        /// Id of the operation
        operation_id: OperationId,
    },
}
