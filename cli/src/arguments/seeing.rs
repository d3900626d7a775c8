//! Flags of what is looked at as it happens.

use clap::{Args, Subcommand};
use ployz_api::{EVENTS_LIMIT_DEFAULT, EVENTS_LIMIT_MAX, OperationId};

#[derive(Debug, Args)]
pub(crate) struct EventsArguments {
    /// Go on, and say what is done from now on
    #[arg(long)]
    pub(crate) follow: bool,
    /// How many of those that were
    #[arg(long, value_name = "N", default_value_t = EVENTS_LIMIT_DEFAULT,
          value_parser = clap::value_parser!(u32).range(..=i64::from(EVENTS_LIMIT_MAX)))]
    pub(crate) limit: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// What was begun within the last 30 days
    #[command(alias = "ls")]
    List,
    /// One of them, with its stages
    Get {
        /// Which one
        operation_id: OperationId,
    },
    /// One of them until it is over; exit 1 if it does not end well
    Watch {
        /// Which one
        operation_id: OperationId,
    },
}
