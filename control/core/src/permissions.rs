//! Permissions: the whole table of roles and requests.

use ployz_api::{Operation, Role};

/// Tells whether a caller of this role may make this request.
pub const fn permits(role: Role, operation: Operation) -> bool {
    match (circle(operation), role) {
        (Circle::Known, Role::Admin | Role::Operator | Role::Reader | Role::Machine)
        | (Circle::Machines, Role::Machine)
        | (Circle::Operators, Role::Admin | Role::Operator)
        | (Circle::Admins, Role::Admin)
        | (Circle::Strangers, Role::Stranger) => true,
        (Circle::Known, Role::Stranger)
        | (Circle::Machines, Role::Admin | Role::Operator | Role::Reader | Role::Stranger)
        | (Circle::Operators, Role::Reader | Role::Machine | Role::Stranger)
        | (Circle::Admins, Role::Operator | Role::Reader | Role::Machine | Role::Stranger)
        | (Circle::Strangers, Role::Admin | Role::Operator | Role::Reader | Role::Machine) => false,
    }
}

/// The circle of callers for a request.
enum Circle {
    /// Every caller with a certificate.
    Known,
    Machines,
    Operators,
    Admins,
    Strangers,
}

const fn circle(operation: Operation) -> Circle {
    match operation {
        // A machine may look: it has all of it in its own view. Root of its host is known to others as the machine.
        Operation::Status
        | Operation::MachineList
        | Operation::MachineRtt
        | Operation::MachineInspect
        | Operation::WorkloadList
        | Operation::Doctor
        | Operation::PairReport
        | Operation::Events
        | Operation::OperationList
        | Operation::OperationGet
        | Operation::StorageList
        | Operation::Relay => Circle::Known,
        // Whose session it is that is relayed is seen, and judged, by whom it is with. Of machines, only those that
        // hold the store have one retire, and only the one that a workload is moved to gets its volumes: the server
        // looks at who it is.
        Operation::Relayed
        | Operation::RttReport
        | Operation::MachineRetire
        | Operation::Volume => Circle::Machines,
        // An invite's token is shown once, to its maker; the list has no secrets, but is no business of readers'. What
        // a workload writes is as much its own as its environment.
        Operation::InviteCreate
        | Operation::InviteList
        | Operation::InviteRevoke
        | Operation::Provision
        | Operation::MachineUpdate
        | Operation::MachineRename
        | Operation::MachineLabel
        | Operation::MachineActivate
        | Operation::MachineDrain
        | Operation::MachineStandby
        | Operation::MachineRemove
        | Operation::WorkloadDeploy
        | Operation::WorkloadInspect
        | Operation::WorkloadLogs
        | Operation::WorkloadRemove
        | Operation::MigratePreview
        | Operation::MigrateApply => Circle::Operators,
        Operation::MeshInit
        | Operation::MeshCreate
        | Operation::MeshStart
        | Operation::MeshStop
        | Operation::MeshDestroy
        | Operation::InviteImport
        | Operation::UpdateStep
        // A holder of the store holds the network's CA.
        | Operation::StoragePromote
        | Operation::StorageDemote
        | Operation::StorageStep
        | Operation::CredentialCreate
        | Operation::CredentialList
        | Operation::CredentialRevoke => Circle::Admins,
        // The invite's secret admits a stranger; every other caller is a member already.
        Operation::InviteRedeem => Circle::Strangers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table once more, as an operator would draw it.
    #[test]
    fn every_role_meets_every_operation() {
        use Operation as O;
        #[rustfmt::skip]
        let table = [
            //                     admin  operator reader machine stranger
            (O::Status,           [true,  true,    true,  true,   false]),
            (O::MeshInit,         [true,  false,   false, false,  false]),
            (O::MeshCreate,       [true,  false,   false, false,  false]),
            (O::MeshStart,        [true,  false,   false, false,  false]),
            (O::MeshStop,         [true,  false,   false, false,  false]),
            (O::MeshDestroy,      [true,  false,   false, false,  false]),
            (O::MachineList,      [true,  true,    true,  true,   false]),
            (O::MachineRtt,       [true,  true,    true,  true,   false]),
            (O::MachineInspect,   [true,  true,    true,  true,   false]),
            (O::MachineRename,    [true,  true,    false, false,  false]),
            (O::MachineLabel,     [true,  true,    false, false,  false]),
            (O::MachineActivate,  [true,  true,    false, false,  false]),
            (O::MachineDrain,     [true,  true,    false, false,  false]),
            (O::MachineStandby,   [true,  true,    false, false,  false]),
            (O::MachineRemove,    [true,  true,    false, false,  false]),
            (O::MachineRetire,    [false, false,   false, true,   false]),
            (O::WorkloadDeploy,   [true,  true,    false, false,  false]),
            (O::WorkloadList,     [true,  true,    true,  true,   false]),
            (O::WorkloadInspect,  [true,  true,    false, false,  false]),
            (O::WorkloadLogs,     [true,  true,    false, false,  false]),
            (O::WorkloadRemove,   [true,  true,    false, false,  false]),
            (O::MachineUpdate,    [true,  true,    false, false,  false]),
            (O::UpdateStep,       [true,  false,   false, false,  false]),
            (O::StoragePromote,   [true,  false,   false, false,  false]),
            (O::StorageDemote,    [true,  false,   false, false,  false]),
            (O::StorageList,      [true,  true,    true,  true,   false]),
            (O::StorageStep,      [true,  false,   false, false,  false]),
            (O::MigratePreview,   [true,  true,    false, false,  false]),
            (O::MigrateApply,     [true,  true,    false, false,  false]),
            (O::Volume,           [false, false,   false, true,   false]),
            (O::InviteCreate,     [true,  true,    false, false,  false]),
            (O::InviteList,       [true,  true,    false, false,  false]),
            (O::InviteRevoke,     [true,  true,    false, false,  false]),
            (O::InviteImport,     [true,  false,   false, false,  false]),
            (O::InviteRedeem,     [false, false,   false, false,  true]),
            (O::CredentialCreate, [true,  false,   false, false,  false]),
            (O::CredentialList,   [true,  false,   false, false,  false]),
            (O::CredentialRevoke, [true,  false,   false, false,  false]),
            (O::Doctor,           [true,  true,    true,  true,   false]),
            (O::PairReport,       [true,  true,    true,  true,   false]),
            (O::RttReport,        [false, false,   false, true,   false]),
            (O::Events,           [true,  true,    true,  true,   false]),
            (O::OperationList,    [true,  true,    true,  true,   false]),
            (O::OperationGet,     [true,  true,    true,  true,   false]),
            (O::Provision,        [true,  true,    false, false,  false]),
            (O::Relay,            [true,  true,    true,  true,   false]),
            (O::Relayed,          [false, false,   false, true,   false]),
        ];
        assert_eq!(table.map(|(operation, _)| operation), Operation::ALL);
        for (operation, row) in table {
            for (role, expected) in Role::ALL.into_iter().zip(row) {
                assert_eq!(permits(role, operation), expected, "{role:?} {operation:?}");
            }
        }
    }
}
