//! The store: key-value buckets of JetStream, written by compare-and-set.

mod buckets;
mod client;
#[cfg(test)]
mod contract;
mod copying;
mod error;
mod events;
mod health;
pub(crate) mod operations;
pub(crate) mod records;
mod retry;
mod stream;
mod watch;

pub(crate) use buckets::{
    CREDENTIALS, INVITES, LEASES, MACHINES, OBSERVED, OPERATIONS, RTT, WORKLOADS, stream_name,
};
pub(crate) use client::{Revised, Slot, Store};
pub(crate) use error::StoreError;
pub(crate) use events::Following;
pub(crate) use watch::{Changes, Machines};
