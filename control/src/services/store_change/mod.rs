//! Changing which machines hold the store, coordinated by one of those that do. `ployz_core::StoreChangeProcedure`
//! decides; this carries its steps out.
//!
//! The next store is a fresh one, beside the one that counts. A journal on the coordinator's disk says that there is a
//! change; its `network.json` says which store counts. So the daemon that comes after one that died knows whether to
//! complete or to undo it.

mod ask;
mod begin;
mod coordinator;
mod directories;
mod journal;
mod member;
mod shares;
#[cfg(test)]
mod tests;

pub(crate) use ask::announce_to_silent;
pub(crate) use begin::begin;
pub(crate) use coordinator::resume;
pub(crate) use directories::{delete_leftovers, move_in};
pub(crate) use member::step;
pub(crate) use shares::storage_list;
