//! Provisioning: turning bare hosts into machines, over ssh.
//!
//! ```text
//!   preflight ─▶ install ─▶ join ─▶ record ─▶ ready ─▶ enable
//!       │           └─────────┴───────┴─────────┴────────┴──▶ taken back, on that host
//!       └─▶ nothing was changed
//! ```
//!
//! The client does the work, so that the keys to the hosts stay with it, and reports progress to the network. A host
//! that was left halfway is continued.

mod host;
mod ledger;
mod plan;
mod preflight;
mod remote;
mod source;
mod stage;

pub(crate) use ledger::Ledger;
pub(crate) use plan::{Joined, Plan};
pub(crate) use source::Source;
pub(crate) use stage::Stopped;
