//! A network that this machine is in: its view, the control task's driver, and the client of other machines.
//!
//! ```text
//!            changes                     effects
//!   follow ───────────▶ drive(Control) ─────────▶ data plane, disk, nats-server's users
//!     ▲                      │  │
//!     └────── resync ────────┘  └── report ──────▶ store
//! ```

mod client;
#[cfg(test)]
mod contract;
mod drive;
mod error;
mod follow;
mod host;
mod report;
#[cfg(test)]
mod scale_test;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use client::{Client, ask_once};
pub(crate) use error::NetworkError;
pub(crate) use host::{Contacts, Host};
pub(crate) use state::{Network, Storage, is_session};
