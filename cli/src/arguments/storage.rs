//! The flags of `ployzctl machine storage`.

use clap::{Args, Subcommand};
use clap_complete::ArgValueCompleter;

use crate::completion;

#[derive(Debug, Subcommand)]
pub(crate) enum StorageCommand {
    /// Add machines as holders of the store and the CA; naming all N moves the store or replaces a holder
    Promote {
        #[command(flatten)]
        arguments: StorageArguments,
        /// Number of holders afterwards: 1, 3 or 5
        #[arg(long, value_name = "N", default_value_t = 3)]
        replicas: u32,
    },
    /// Remove machines as holders of the store
    Demote {
        #[command(flatten)]
        arguments: StorageArguments,
        /// Number of holders afterwards: 1, 3 or 5 [default: the remaining ones]
        #[arg(long, value_name = "N")]
        replicas: Option<u32>,
    },
    /// List the holders and their health
    #[command(alias = "list")]
    Ls,
}

#[derive(Debug, Args)]
pub(crate) struct StorageArguments {
    /// Ids, names, or unique prefixes of either
    #[arg(required = true, value_name = "MACHINE", add = ArgValueCompleter::new(completion::machines))]
    pub(crate) machines: Vec<String>,
    /// Show the plan without carrying it out
    #[arg(long)]
    pub(crate) dry_run: bool,
}
