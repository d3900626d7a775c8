//! The flags of `ployzctl machine invite`, and of whatever takes a token.

use clap::{Args, Subcommand};
use ployz_api::{InviteId, LabelKey, LabelValue, Name, TTL_SECS_DEFAULT, TTL_SECS_MAX};

use super::values::label;

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TokenArguments {
    /// The token that `machine invite create` printed; other users of this machine can see it here
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Read the token from stdin
    #[arg(long)]
    pub(crate) token_stdin: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InviteCommand {
    /// Make an invite for one machine
    Create {
        /// For how long it can be used
        #[arg(long, value_name = "SECS", default_value_t = TTL_SECS_DEFAULT,
              value_parser = clap::value_parser!(u64).range(1..=TTL_SECS_MAX))]
        ttl_secs: u64,
        /// What the machine will be like
        #[command(flatten)]
        terms: TermsArguments,
    },
    /// Invites that can be used
    List {
        /// Those that cannot be used any more as well
        #[arg(long)]
        all: bool,
    },
    /// Take an invite back
    Revoke {
        /// Which one
        invite_id: InviteId,
    },
    /// Join the network that an invite is for
    Import(TokenArguments),
}

/// What the network says of a machine that joins, whatever that says itself.
#[derive(Clone, Debug, Args)]
pub(crate) struct TermsArguments {
    /// What to call it
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Where it is
    #[arg(long)]
    pub(crate) region: Option<Name>,
    /// A label of it; may be said several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(LabelKey, LabelValue)>,
}
