//! Flags of who gets in, and where.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;
use ployz_api::{CredentialId, Name, Role};

use super::values::duration;
use crate::completion;

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Add a context of this name
    Add {
        /// What to call it
        name: Name,
        /// The file that `credential create` or `context export` wrote [default: stdin]
        #[arg(long, value_name = "FILE")]
        credential: Option<PathBuf>,
    },
    /// All contexts
    #[command(alias = "list")]
    Ls,
    /// Use this one when none is named; `local` is the daemon of this host
    Use {
        /// Which one
        #[arg(add = ArgValueCompleter::new(completion::contexts))]
        name: Name,
    },
    /// One context, without its secrets
    Show {
        /// Which one [default: the current one]
        #[arg(add = ArgValueCompleter::new(completion::contexts))]
        name: Option<Name>,
    },
    /// Call a context something else
    Rename {
        /// Which one
        #[arg(add = ArgValueCompleter::new(completion::contexts))]
        from: Name,
        /// Its new name
        to: Name,
    },
    /// Forget a context
    Rm {
        /// Which one
        #[arg(add = ArgValueCompleter::new(completion::contexts))]
        name: Name,
    },
    /// A context with its secret key, to be imported elsewhere
    Export {
        /// Which one [default: the current one]
        #[arg(add = ArgValueCompleter::new(completion::contexts))]
        name: Option<Name>,
        /// Write it to a new file of mode 0600 [default: stdout]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Add the context that `credential create` or `context export` wrote
    Import(ImportArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// Where it is [default: stdin]
    pub(crate) file: Option<PathBuf>,
    /// What to call it [default: as the file does]
    #[arg(long)]
    pub(crate) name: Option<Name>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CredentialCommand {
    /// Make a credential, to be imported as a context by whoever gets it
    Create(CredentialCreateArguments),
    /// All credentials
    #[command(alias = "ls")]
    List,
    /// Have every machine refuse a credential from now on
    Revoke {
        /// Which one
        credential_id: CredentialId,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CredentialCreateArguments {
    /// What its holder may do
    #[arg(long)]
    pub(crate) role: PersonRole,
    /// For how long it is good: 30m, 12h, 90d [default: for ever]
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Whose it is
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Write it to a new file of mode 0600 [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// The roles of people.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PersonRole {
    /// Everything
    Admin,
    /// Everything but credentials and the network itself
    Operator,
    /// Look, and change nothing
    Reader,
}

impl From<PersonRole> for Role {
    fn from(role: PersonRole) -> Self {
        match role {
            PersonRole::Admin => Self::Admin,
            PersonRole::Operator => Self::Operator,
            PersonRole::Reader => Self::Reader,
        }
    }
}
