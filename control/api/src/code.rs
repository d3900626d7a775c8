//! The codes of refusals: short, and stable for scripts.

use serde::{Deserialize, Serialize};

/// Why a request was refused or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names say it; docs/protocol.md says more")]
pub enum Code {
    Ok,
    NetworkNotRunning,
    NetworkAlreadyRunning,
    NetworkMismatch,
    MachineNotFound,
    MachineAmbiguous,
    MachineUnreachable,
    InvalidTransition,
    MachineHoldsWorkloads,
    WorkloadNotFound,
    CannotRemoveSelf,
    QuorumAtRisk,
    InvalidReplicas,
    InviteInvalid,
    InviteExpired,
    InviteConsumed,
    InviteRevoked,
    StoreUnavailable,
    Conflict,
    Busy,
    Forbidden,
    VersionMismatch,
    DaemonUnreachable,
    SshFailed,
    InstallFailed,
    Timeout,
    InvalidArgument,
    Unsupported,
    Internal,
}

impl Code {
    /// The process's exit status: 0 done, 1 refused or failed, 2 usage, 3 not reachable.
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::InvalidArgument => 2,
            Self::DaemonUnreachable => 3,
            Self::NetworkNotRunning
            | Self::NetworkAlreadyRunning
            | Self::NetworkMismatch
            | Self::MachineNotFound
            | Self::MachineAmbiguous
            | Self::MachineUnreachable
            | Self::InvalidTransition
            | Self::MachineHoldsWorkloads
            | Self::WorkloadNotFound
            | Self::CannotRemoveSelf
            | Self::QuorumAtRisk
            | Self::InvalidReplicas
            | Self::InviteInvalid
            | Self::InviteExpired
            | Self::InviteConsumed
            | Self::InviteRevoked
            | Self::StoreUnavailable
            | Self::Conflict
            | Self::Busy
            | Self::Forbidden
            | Self::SshFailed
            | Self::InstallFailed
            | Self::VersionMismatch
            | Self::Timeout
            | Self::Unsupported
            | Self::Internal => 1,
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}
