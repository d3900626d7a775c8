//! Making machines out of bare hosts, over ssh.
//!
//! ```text
//!   preflight ─▶ install ─▶ join ─▶ record ─▶ ready ─▶ enable
//!       │           └─────────┴───────┴─────────┴────────┴──▶ taken back, on that host
//!       └─▶ nothing was changed
//! ```
//!
//! The client does it, so that nobody else needs the key to the hosts, and tells the network how far it is. A host that is found
//! halfway there is gone on with.

mod host;
mod ledger;
mod making;
mod preflight;
mod remote;
mod source;
mod stage;

pub(crate) use ledger::Ledger;
pub(crate) use making::{Joined, Plan};
pub(crate) use source::Source;
pub(crate) use stage::Stopped;
