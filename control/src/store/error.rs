//! Failures of the store.

use std::fmt::Display;

use ployz_api::MachineId;

use crate::host::error::HostError;
use crate::nats::NatsError;

/// A call to the store that has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The store does not answer, or refuses what was asked.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// A client of the store cannot be made from this machine's keys.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A client of the store cannot be made from these addresses.
    #[error("cannot connect to the store: {0}")]
    Connect(String),
    /// The store's server is too old.
    #[error(transparent)]
    Server(#[from] NatsError),
    /// A record is not what its bucket holds.
    #[error("record {key} is damaged: {cause}")]
    Damaged {
        key: String,
        cause: serde_json::Error,
    },
    /// A value cannot be rendered as JSON.
    #[error("cannot render a record: {0}")]
    Render(serde_json::Error),
    /// A stream of the next store is not the same as this store's.
    #[error("the copy of stream {0} differs from the original")]
    CopyDiffers(String),
    /// The record to change is not there any more.
    #[error("machine {0} has been removed")]
    MachineRemoved(MachineId),
    /// Other writers were faster at every attempt.
    #[error("the record of machine {0} is being changed by other requests")]
    Contended(MachineId),
}

impl StoreError {
    /// A store that does not answer, and why.
    pub(super) fn unavailable(cause: impl Display) -> Self {
        Self::Unavailable(cause.to_string())
    }
}
