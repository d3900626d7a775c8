//! The flags of contexts and credentials.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;
use ployz_api::{CredentialId, Name, Role};

use super::values::duration;
use crate::completion;

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Add a context under this name
    Add {
        /// Name of the context
        name: Name,
        /// File that `credential create` or `context export` wrote [default: stdin]
        #[arg(long, value_name = "FILE")]
        credential: Option<PathBuf>,
    },
    /// List the contexts
    #[command(alias = "list")]
    Ls,
    /// Make a context the current one; `local` is the daemon of this host
    Use {
        /// Name of the context
        #[arg(add = ArgValueCompleter::new(completion::contexts))]
        name: Name,
    },
    /// Show a context without its secrets
    Show {
        /// Context [default: the current one]
        #[arg(add = ArgValueCompleter::new(completion::contexts))]
        name: Option<Name>,
    },
    /// Rename a context
    Rename {
        /// Name of the context
        #[arg(add = ArgValueCompleter::new(completion::contexts))]
        from: Name,
        /// New name
        to: Name,
    },
    /// Remove a context
    Rm {
        /// Name of the context
        #[arg(add = ArgValueCompleter::new(completion::contexts))]
        name: Name,
    },
    /// Print a context with its secret key, to import it elsewhere
    Export {
        /// Context [default: the current one]
        #[arg(add = ArgValueCompleter::new(completion::contexts))]
        name: Option<Name>,
        /// Write to this new file, mode 0600 [default: stdout]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Add the context that `credential create` or `context export` wrote
    Import(ImportArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// File to read [default: stdin]
    pub(crate) file: Option<PathBuf>,
    /// Name of the context [default: the name in the file]
    #[arg(long)]
    pub(crate) name: Option<Name>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CredentialCommand {
    /// Create a credential, which its holder imports as a context
    Create(CredentialCreateArguments),
    /// List the credentials
    #[command(alias = "ls")]
    List,
    /// Revoke a credential on every machine
    Revoke {
        /// Id of the credential
        credential_id: CredentialId,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CredentialCreateArguments {
    /// Role of the holder
    #[arg(long)]
    pub(crate) role: PersonRole,
    /// Lifetime, such as 30m, 12h or 90d [default: unlimited]
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Name of the holder
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Write to this new file, mode 0600 [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// The roles of people.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PersonRole {
    /// Everything
    Admin,
    /// Change everything but credentials and the network itself
    Operator,
    /// Read everything, change nothing
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
