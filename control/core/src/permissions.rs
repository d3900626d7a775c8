//! The callers' roles against the table of requests.

use ployz_api::{Circle, Operation, Role};

/// Whether a caller of this role may make a request. Circles that name particular machines are machines' here; which
/// machine it is has to be looked up in the view.
pub const fn permits(role: Role, operation: Operation) -> bool {
    match (operation.row().circle, role) {
        (Circle::Known, Role::Admin | Role::Operator | Role::Reader | Role::Machine)
        | (Circle::Machines | Circle::Claimant, Role::Machine)
        | (Circle::Operators, Role::Admin | Role::Operator)
        | (Circle::Admins, Role::Admin)
        | (Circle::Strangers, Role::Stranger) => true,
        (Circle::Known, Role::Stranger)
        | (
            Circle::Machines | Circle::Claimant,
            Role::Admin | Role::Operator | Role::Reader | Role::Stranger,
        )
        | (Circle::Operators, Role::Reader | Role::Machine | Role::Stranger)
        | (Circle::Admins, Role::Operator | Role::Reader | Role::Machine | Role::Stranger)
        | (Circle::Strangers, Role::Admin | Role::Operator | Role::Reader | Role::Machine) => false,
    }
}

/// Whether a caller of this role may have a workload run as root of its machine, which reaches everything that the
/// machine does: on one that holds the store, the network's authority.
pub const fn permits_privileged(role: Role) -> bool {
    match role {
        Role::Admin => true,
        Role::Operator | Role::Reader | Role::Machine | Role::Stranger => false,
    }
}

#[cfg(test)]
mod tests {
    use ployz_api::REQUESTS;

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
            (O::CertificateRenew, [false, false,   false, true,   false]),
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
        let known = REQUESTS.iter().map(|row| row.operation);
        assert!(table.iter().map(|(operation, _)| *operation).eq(known));
        for (operation, row) in table {
            for (role, expected) in Role::ALL.into_iter().zip(row) {
                assert_eq!(permits(role, operation), expected, "{role:?} {operation:?}");
            }
        }
    }

    #[test]
    fn privileges_on_a_host_are_an_admins_to_give() {
        for role in Role::ALL {
            assert_eq!(permits_privileged(role), role == Role::Admin, "{role:?}");
        }
    }
}
