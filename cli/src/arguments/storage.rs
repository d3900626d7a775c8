//! The flags of `ployzctl machine storage`.

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use crate::completion;

#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Have machines hold the store and the network's authority; name all that are to hold it to move it or to replace one
    Promote {
        #[command(flatten)]
        arguments: StorageArguments,
        /// How many machines hold it then: 1, 3 or 5
        #[arg(long, value_name = "N", default_value_t = 3)]
        replicas: u32,
    },
    /// Have machines hold it no more
    Demote {
        #[command(flatten)]
        arguments: StorageArguments,
        /// How many machines hold it then: 1, 3 or 5 [default: those that are left]
        #[arg(long, value_name = "N")]
        replicas: Option<u32>,
    },
    /// Who holds it, and how well
    #[command(alias = "list")]
    Ls,
}

#[derive(Debug, Args)]
pub(crate) struct StorageArguments {
    /// Their ids, names, or the unique beginnings of either
    #[arg(required = true, value_name = "MACHINE", add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machines: Vec<String>,
    /// Only look whether it could be done, and say how
    #[arg(long)]
    pub(crate) dry_run: bool,
}
