//! Failures of the layers below as an operator reads them: a code, one line, and the command that mends it.
//!
//! A layer's error says what happened and why; which code that is, and what to do next, is decided here alone.

use ployz_api::{Code, Failure};

use crate::host::error::HostError;
use crate::nats::NatsError;
use crate::network::NetworkError;
use crate::overlay::OverlayError;
use crate::store::StoreError;
use crate::workloads::WorkloadError;

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
                .hint("install nats-server beside ployzd, or give its path with --nats-server"),
            NatsError::TooOld { .. } => Self::new(Code::InstallFailed, message)
                .hint("install nats-server 2.14.6, or give its path with --nats-server"),
            NatsError::Start { .. }
            | NatsError::EndedAtOnce(_)
            | NatsError::Signal { .. }
            | NatsError::NoMainPid { .. }
            | NatsError::NotHolder => Self::new(Code::Internal, message),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Host(error) => error.into(),
            StoreError::Server(error) => error.into(),
            StoreError::Unavailable(_) => Self::new(Code::StoreUnavailable, message)
                .hint("ployzctl status (on a machine that holds the store)"),
            StoreError::Connect(_) | StoreError::Damaged { .. } | StoreError::Render(_) => {
                Self::new(Code::Internal, message)
            }
            StoreError::CopyDiffers(_) => {
                Self::new(Code::Internal, message).hint("run the same command again")
            }
            StoreError::MachineRemoved(_) => {
                Self::new(Code::MachineNotFound, message).hint("ployzctl machine ls")
            }
            StoreError::Contended(_) => {
                Self::new(Code::Conflict, message).hint("run the same command again")
            }
        }
    }
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        let message = error.to_string();
        match error {
            NetworkError::Host(error) => error.into(),
            NetworkError::Overlay(error) => error.into(),
            NetworkError::Nats(error) => error.into(),
            NetworkError::Store(error) => error.into(),
            NetworkError::Answered(failure) => failure,
            NetworkError::Unreachable { machine, .. }
            | NetworkError::Unanswered { machine, .. } => {
                let hint = format!("ployzctl doctor {machine}");
                Self::new(Code::MachineUnreachable, message).hint(hint)
            }
            NetworkError::Refused(_) => Self::new(Code::Forbidden, message),
            NetworkError::NoHolder => {
                Self::new(Code::StoreUnavailable, message).hint("ployzctl machine ls")
            }
            NetworkError::NotHolder => Self::new(Code::Unsupported, message).hint(
                "run it on a machine that `ployzctl machine ls` shows with authority storage",
            ),
        }
    }
}

impl From<WorkloadError> for Failure {
    fn from(error: WorkloadError) -> Self {
        let message = error.to_string();
        match error {
            WorkloadError::Host(error) => error.into(),
            WorkloadError::Network(error) => error.into(),
            WorkloadError::Answered(failure) => failure,
            WorkloadError::NotHere(_) => {
                Self::new(Code::WorkloadNotFound, message).hint("ployzctl workload ls")
            }
            WorkloadError::Moving(_) => {
                Self::new(Code::Busy, message).hint("ployzctl operation list")
            }
            WorkloadError::NotPaused(_) => Self::new(Code::Busy, message),
            WorkloadError::NoVolume { .. } => Self::new(Code::InvalidArgument, message),
            WorkloadError::Runtime { .. }
            | WorkloadError::Start(_)
            | WorkloadError::EndedAtOnce
            | WorkloadError::Launch(_)
            | WorkloadError::Sandbox { .. }
            | WorkloadError::NoEngine { .. }
            | WorkloadError::Engine { .. }
            | WorkloadError::FetchingImage(_)
            | WorkloadError::Subnet(_)
            | WorkloadError::Firewall(_)
            | WorkloadError::Volume { .. }
            | WorkloadError::Path { .. }
            | WorkloadError::Unsent(_)
            | WorkloadError::CopyTask(_) => Self::new(Code::Internal, message),
        }
    }
}
