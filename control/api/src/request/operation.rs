//! Requests by name: which of them change something, and which take a machine that holds the store.

use serde::{Deserialize, Serialize};

/// A request by name only, for the table of who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "they are those of `Request`")]
pub enum Operation {
    Status,
    MeshInit,
    MeshCreate,
    MeshStart,
    MeshStop,
    MeshDestroy,
    MachineList,
    MachineRtt,
    MachineInspect,
    MachineRename,
    MachineLabel,
    MachineActivate,
    MachineDrain,
    MachineStandby,
    MachineRemove,
    MachineRetire,
    WorkloadDeploy,
    WorkloadList,
    WorkloadInspect,
    WorkloadLogs,
    WorkloadRemove,
    MachineUpdate,
    UpdateStep,
    StoragePromote,
    StorageDemote,
    StorageList,
    StorageStep,
    MigratePreview,
    MigrateApply,
    Volume,
    InviteCreate,
    InviteList,
    InviteRevoke,
    InviteImport,
    InviteRedeem,
    CredentialCreate,
    CredentialList,
    CredentialRevoke,
    Doctor,
    PairReport,
    RttReport,
    Events,
    OperationList,
    OperationGet,
    Provision,
    Relay,
    Relayed,
}

impl Operation {
    /// Every one, for tables and tests.
    pub const ALL: [Self; 47] = [
        Self::Status,
        Self::MeshInit,
        Self::MeshCreate,
        Self::MeshStart,
        Self::MeshStop,
        Self::MeshDestroy,
        Self::MachineList,
        Self::MachineRtt,
        Self::MachineInspect,
        Self::MachineRename,
        Self::MachineLabel,
        Self::MachineActivate,
        Self::MachineDrain,
        Self::MachineStandby,
        Self::MachineRemove,
        Self::MachineRetire,
        Self::WorkloadDeploy,
        Self::WorkloadList,
        Self::WorkloadInspect,
        Self::WorkloadLogs,
        Self::WorkloadRemove,
        Self::MachineUpdate,
        Self::UpdateStep,
        Self::StoragePromote,
        Self::StorageDemote,
        Self::StorageList,
        Self::StorageStep,
        Self::MigratePreview,
        Self::MigrateApply,
        Self::Volume,
        Self::InviteCreate,
        Self::InviteList,
        Self::InviteRevoke,
        Self::InviteImport,
        Self::InviteRedeem,
        Self::CredentialCreate,
        Self::CredentialList,
        Self::CredentialRevoke,
        Self::Doctor,
        Self::PairReport,
        Self::RttReport,
        Self::Events,
        Self::OperationList,
        Self::OperationGet,
        Self::Provision,
        Self::Relay,
        Self::Relayed,
    ];

    /// Whether it changes something, and so is an event.
    pub const fn is_change(self) -> bool {
        match self {
            Self::MeshInit
            | Self::MeshCreate
            | Self::MeshStart
            | Self::MeshStop
            | Self::MeshDestroy
            | Self::MachineRename
            | Self::MachineLabel
            | Self::MachineActivate
            | Self::MachineDrain
            | Self::MachineStandby
            | Self::MachineRemove
            | Self::MachineRetire
            | Self::WorkloadDeploy
            | Self::WorkloadRemove
            | Self::MachineUpdate
            | Self::StoragePromote
            | Self::StorageDemote
            | Self::MigrateApply
            | Self::InviteCreate
            | Self::InviteRevoke
            | Self::InviteImport
            | Self::InviteRedeem
            | Self::CredentialCreate
            | Self::CredentialRevoke => true,
            Self::Status
            | Self::MachineList
            | Self::MachineRtt
            | Self::MachineInspect
            | Self::WorkloadList
            | Self::WorkloadInspect
            | Self::WorkloadLogs
            | Self::MigratePreview
            | Self::Volume
            | Self::InviteList
            | Self::CredentialList
            | Self::Doctor
            | Self::PairReport
            | Self::RttReport
            | Self::UpdateStep
            | Self::StorageList
            | Self::StorageStep
            | Self::Events
            | Self::OperationList
            | Self::OperationGet
            | Self::Provision
            | Self::Relay
            | Self::Relayed => false,
        }
    }

    /// Whether it takes a machine that holds the store, and with it the network's authority.
    pub const fn needs_coordinator(self) -> bool {
        match self {
            Self::MachineRename
            | Self::MachineLabel
            | Self::MachineActivate
            | Self::MachineDrain
            | Self::MachineStandby
            | Self::MachineRemove
            | Self::WorkloadDeploy
            | Self::WorkloadInspect
            | Self::WorkloadRemove
            | Self::MachineUpdate
            | Self::StoragePromote
            | Self::StorageDemote
            | Self::StorageList
            | Self::MigratePreview
            | Self::MigrateApply
            | Self::InviteCreate
            | Self::InviteList
            | Self::InviteRevoke
            | Self::InviteRedeem
            | Self::CredentialCreate
            | Self::CredentialList
            | Self::CredentialRevoke
            | Self::Provision => true,
            Self::Status
            | Self::MeshInit
            | Self::MeshCreate
            | Self::MeshStart
            | Self::MeshStop
            | Self::MeshDestroy
            | Self::MachineList
            | Self::MachineRtt
            | Self::MachineInspect
            | Self::MachineRetire
            | Self::WorkloadList
            | Self::WorkloadLogs
            | Self::Volume
            | Self::InviteImport
            | Self::Doctor
            | Self::PairReport
            | Self::RttReport
            | Self::UpdateStep
            | Self::StorageStep
            | Self::Events
            | Self::OperationList
            | Self::OperationGet
            | Self::Relay
            | Self::Relayed => false,
        }
    }
}
