//! Failures of a network, and of asking its other machines.

use ployz_api::{Failure, MachineId};

use crate::host::error::HostError;
use crate::nats::NatsError;
use crate::overlay::OverlayError;
use crate::store::StoreError;

/// A failure of a network that this machine is in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// A file or a key of this machine.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The interface, or the data plane behind it.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// The store's server on this machine.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// A call to the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no connection to another machine.
    #[error("machine {machine} cannot be reached from here: {cause}")]
    Unreachable { machine: MachineId, cause: String },
    /// Another machine was asked, and there is no answer.
    #[error("machine {machine} did not answer: {cause}")]
    Unanswered { machine: MachineId, cause: String },
    /// Another machine does not accept this one as a member.
    #[error("{0}")]
    Refused(String),
    /// Another machine answered with a failure.
    #[error("{0}")]
    Answered(Failure),
    /// No holder of the store is known.
    #[error("no machine in view holds the store")]
    NoHolder,
    /// The request needs a holder of the store, and this machine is none.
    #[error("this machine does not hold the store, so it cannot carry out this request")]
    NotHolder,
}
