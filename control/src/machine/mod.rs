//! The machine that this daemon runs on, as requests and services see it: handles to everything that it consists of,
//! and the way to ask the daemon to enter or leave a network.

mod context;
mod credentials;
mod failure;
mod host;
mod lock;
mod participation;
mod traffic;

pub(crate) use context::{Machine, addresses};
pub(crate) use lock::ExclusiveGuard;
pub(crate) use participation::{Command, Entry, Participation, Root};
pub(crate) use traffic::{Traffic, peer};
