//! Failures of the layers below as an operator reads them: a code, one line, and the command that mends it.
//!
//! A layer's error says what happened and why; which code that is, and what to do next, is decided here alone.

use ployz_api::{Code, Failure};

use crate::host::error::HostError;
use crate::nats::NatsError;
use crate::overlay::OverlayError;

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        Self::new(Code::Internal, error.to_string())
    }
}

impl From<OverlayError> for Failure {
    fn from(error: OverlayError) -> Self {
        Self::new(Code::Internal, error.to_string())
    }
}

impl From<NatsError> for Failure {
    fn from(error: NatsError) -> Self {
        let message = error.to_string();
        match error {
            NatsError::Host(error) => error.into(),
            NatsError::NotNatsServer { .. } => Self::new(Code::InstallFailed, message)
                .hint("install nats-server beside ployzd, or say where it is with --nats-server"),
            NatsError::TooOld { .. } => Self::new(Code::InstallFailed, message)
                .hint("install nats-server 2.14.6, or say where it is with --nats-server"),
            NatsError::Start { .. }
            | NatsError::EndedAtOnce(_)
            | NatsError::Signal { .. }
            | NatsError::NoMainPid { .. }
            | NatsError::NotHolder => Self::new(Code::Internal, message),
        }
    }
}
