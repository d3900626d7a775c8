//! The host that the daemon runs on: its files, clock, addresses and programs, and who this machine is.

pub(crate) mod ca;
pub(crate) mod clock;
pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod files;
pub(crate) mod heartbeat;
pub(crate) mod identity;
pub(crate) mod installation;
pub(crate) mod listener;
pub(crate) mod local_addresses;
pub(crate) mod logging;
pub(crate) mod membership;
pub(crate) mod permits;
pub(crate) mod possession;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod refusals;
pub(crate) mod supervisor;
pub(crate) mod systemd;
pub(crate) mod tasks;
pub(crate) mod tls;

#[cfg(test)]
mod tests;
