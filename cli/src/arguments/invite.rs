//! The flags of `ployzctl machine invite`, and of whatever takes a token.

use clap::{Args, Subcommand};
use ployz_api::{InviteId, LabelKey, LabelValue, Name, TTL_SECS_DEFAULT, TTL_SECS_MAX};

use super::values::label;

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TokenArguments {
    /// Token that `machine invite create` printed; other users of this machine can see it here
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Read the token from stdin
    #[arg(long)]
    pub(crate) token_stdin: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// Create an invite for one machine
    Create {
        /// Seconds until the invite expires
        #[arg(long, value_name = "SECS", default_value_t = TTL_SECS_DEFAULT,
              value_parser = clap::value_parser!(u64).range(1..=TTL_SECS_MAX))]
        ttl_secs: u64,
        /// Terms of the machine that joins
        #[command(flatten)]
        terms: TermsArguments,
    },
    /// List the invites that can be used
    List {
        /// Include invites that can no longer be used
        #[arg(long)]
        all: bool,
    },
    /// Revoke an invite
    Revoke {
        /// Id of the invite
        invite_id: InviteId,
    },
    /// Join the network of an invite
    Import(TokenArguments),
}

/// The terms of a machine that joins; they override the machine's own settings.
#[derive(Clone, Debug, Args)]
pub(crate) struct TermsArguments {
    /// Name of the machine
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Region of the machine
    #[arg(long)]
    pub(crate) region: Option<Name>,
    /// Label; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(LabelKey, LabelValue)>,
}
