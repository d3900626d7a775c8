//! Why a client has no answer.

use std::time::Duration;

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon answered at any endpoint.
    #[error("no daemon answers: {0}")]
    Unreachable(String),
    /// A daemon is there, and has no room for this client. Nothing was asked.
    #[error("the daemon is busy: {0}")]
    Busy(String),
    /// The credential cannot be used.
    #[error("the credential cannot be used: {0}")]
    Credential(String),
    /// The daemon does not take the credential.
    #[error("the daemon refused this credential: {0}")]
    Refused(String),
    /// The certificate of the machine behind a relay does not say that it is this one.
    #[error("the machine that was reached is not {0}, by its certificate")]
    WrongMachine(String),
    /// The connection broke while we waited for the answer.
    #[error("the daemon did not answer: {0}")]
    Broken(String),
    /// The answer did not come in time.
    #[error("the daemon did not answer within {0:?}")]
    TimedOut(Duration),
}
