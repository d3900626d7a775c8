//! The table of requests: for each one who may ask it, whether it changes something, which machine answers, and with
//! how many answers. Routing, authorisation, the audit trail and the table in `docs/protocol.md` follow from it.
//! `docs/contributing/add-a-request.md` has the steps of adding a row.

use serde::{Deserialize, Serialize};

use crate::request::Request;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The request by its name.
    pub operation: Operation,
    /// The callers that it is answered for.
    pub circle: Circle,
    /// Whether it changes something, which the audit trail keeps.
    pub effect: Effect,
    /// The machine that can answer.
    pub answered_by: Answerer,
    /// The frames of its answer.
    pub answers: Answers,
}

/// The callers that a request is answered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circle {
    /// Every caller with a certificate. A machine may look: its own view holds all of it, and root of its host is known
    /// to others as the machine.
    Known,
    /// Machines of the network.
    Machines,
    /// The machine that a coordinator has had claim the workload.
    Claimant,
    /// Admins and operators.
    Operators,
    /// Admins.
    Admins,
    /// Callers without a certificate: a secret in the request stands for it.
    Strangers,
}

/// Whether a request changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It only reads, or belongs to a change that is in the audit trail already.
    Read,
    /// It changes something.
    Change,
}

/// The machine that can answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// Any machine.
    Any,
    /// A machine that holds the store.
    Holder,
}

/// The frames of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// One.
    One,
    /// As many as there are results, and the last one may be a failure.
    Many,
    /// None that the table speaks of: what follows on the stream belongs to another session.
    Session,
}

/// Builds [`Operation`], the table, and the functions of [`Request`] that name its row and its target.
macro_rules! requests {
    ($(
        $name:ident $fields:tt $circle:ident $effect:ident $(($target:expr))?, $answered_by:ident, $answers:ident;
    )*) => {
        /// A request by its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[expect(missing_docs, reason = "the variants of `Request` are documented")]
        pub enum Operation {
            $($name,)*
        }

        /// Every request.
        pub const REQUESTS: &[Row] = &[
            $(Row {
                operation: Operation::$name,
                circle: Circle::$circle,
                effect: Effect::$effect,
                answered_by: Answerer::$answered_by,
                answers: Answers::$answers,
            },)*
        ];

        impl Request {
            /// The request by its name.
            pub const fn operation(&self) -> Operation {
                match self {
                    $(Self::$name { .. } => Operation::$name,)*
                }
            }

            /// The object of a change, in a word that is no secret; empty where the answer has to say.
            pub fn target(&self) -> String {
                match self {
                    $(requests!(@pattern $name $fields) => requests!(@target $($target)?),)*
                }
            }
        }
    };
    (@pattern $name:ident ()) => { Request::$name { .. } };
    (@pattern $name:ident ($field:ident)) => { Request::$name($field) };
    (@pattern $name:ident { $field:ident }) => { Request::$name { $field, .. } };
    (@target) => { String::new() };
    (@target $target:expr) => { $target };
}

requests! {
    //                            who may    what it does                              who answers answers
    Status ()                     Known      Read,                                     Any,    One;
    MeshInit (request)            Admins     Change (request.name.to_string()),        Any,    One;
    MeshCreate (request)          Admins     Change (request.name.to_string()),        Any,    One;
    MeshStart ()                  Admins     Change,                                   Any,    One;
    MeshStop ()                   Admins     Change,                                   Any,    One;
    MeshDestroy ()                Admins     Change,                                   Any,    One;
    MachineList ()                Known      Read,                                     Any,    One;
    MachineRtt ()                 Known      Read,                                     Any,    Many;
    MachineInspect ()             Known      Read,                                     Any,    One;
    MachineRename { machine }     Operators  Change (machine.clone()),                 Holder, One;
    MachineLabel { machine }      Operators  Change (machine.clone()),                 Holder, One;
    MachineActivate { machine }   Operators  Change (machine.clone()),                 Holder, One;
    MachineDrain { machine }      Operators  Change (machine.clone()),                 Holder, One;
    MachineStandby { machine }    Operators  Change (machine.clone()),                 Holder, One;
    MachineRemove { machine }     Operators  Change (machine.clone()),                 Holder, One;
    // Whichever brings it: what counts is the network's decision, which the machine checks for itself.
    MachineRetire ()              Machines   Change,                                   Any,    One;
    WorkloadDeploy (request)      Operators  Change (request.workload.to_string()),    Holder, One;
    WorkloadList ()               Known      Read,                                     Any,    One;
    WorkloadInspect ()            Operators  Read,                                     Holder, One;
    // What a workload writes is as much its own as its environment.
    WorkloadLogs ()               Operators  Read,                                     Any,    One;
    WorkloadRemove { workload }   Operators  Change (workload.to_string()),            Holder, One;
    MachineUpdate (request)       Operators  Change (request.machines.join(" ")),      Holder, One;
    UpdateStep ()                 Admins     Read,                                     Any,    One;
    // A machine that holds the store has the network's authority.
    StoragePromote (request)      Admins     Change (request.machines.join(" ")),      Holder, One;
    StorageDemote (request)       Admins     Change (request.machines.join(" ")),      Holder, One;
    StorageList ()                Known      Read,                                     Holder, One;
    StorageStep ()                Admins     Read,                                     Any,    One;
    MigratePreview ()             Operators  Read,                                     Holder, One;
    MigrateApply (request)        Operators  Change (request.workload.to_string()),    Holder, One;
    Volume ()                     Claimant   Read,                                     Any,    One;
    InviteCreate ()               Operators  Change,                                   Holder, One;
    // The list has no secrets, but is no business of readers'.
    InviteList ()                 Operators  Read,                                     Holder, One;
    InviteRevoke { invite_id }    Operators  Change (invite_id.to_string()),           Holder, One;
    InviteImport ()               Admins     Change,                                   Any,    One;
    // The invite's secret is what lets a stranger in; every other caller is in already.
    InviteRedeem (request)        Strangers  Change (request.machine_id.to_string()),  Holder, One;
    CredentialCreate (request)    Admins     Change (request.role.name().to_owned()),  Holder, One;
    CredentialList ()             Admins     Read,                                     Holder, One;
    CredentialRevoke { credential_id } Admins Change (credential_id.to_string()),      Holder, One;
    CertificateRenew ()           Machines   Read,                                     Holder, One;
    Doctor ()                     Known      Read,                                     Any,    One;
    PairReport ()                 Known      Read,                                     Any,    One;
    RttReport ()                  Machines   Read,                                     Any,    One;
    Events ()                     Known      Read,                                     Any,    Many;
    OperationList ()              Known      Read,                                     Any,    One;
    OperationGet ()               Known      Read,                                     Any,    One;
    Provision ()                  Operators  Read,                                     Holder, One;
    Relay ()                      Known      Read,                                     Any,    Session;
    // The caller of the session that is relayed is authorised by the machine that it is with.
    Relayed ()                    Machines   Read,                                     Any,    Session;
}

impl Operation {
    /// Its row of the table.
    pub const fn row(self) -> &'static Row {
        // Rows and variants come from the same list.
        &REQUESTS[self as usize]
    }

    /// The name as it stands in a request, `machine-list` say.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_finds_its_own_row_and_name() {
        for row in REQUESTS {
            assert_eq!(row.operation.row(), row);
            let name = serde_json::to_value(row.operation).unwrap();
            assert_eq!(name, row.operation.name());
        }
    }

    #[test]
    fn a_change_names_its_target_and_a_reading_none() {
        let label = Request::MachineDrain {
            machine: "m1".to_owned(),
        };
        assert_eq!(
            (label.target().as_str(), label.operation()),
            ("m1", Operation::MachineDrain)
        );
        assert_eq!(Request::Status.target(), "");
        assert_eq!(Operation::MachineDrain.row().effect, Effect::Change);
        assert_eq!(Operation::Status.row().effect, Effect::Read);
    }

    const PROTOCOL: &str = include_str!("../../../docs/protocol.md");

    #[test]
    fn the_protocol_documents_each_request_in_exactly_one_row() {
        let table = PROTOCOL
            .lines()
            .skip_while(|line| !line.starts_with("| request |"))
            .take_while(|line| line.starts_with('|'))
            .skip(2);
        let mut documented: Vec<_> = table.map(columns).collect();
        let mut expected: Vec<_> = REQUESTS.iter().map(documentation).collect();
        documented.sort();
        expected.sort();
        for (documented, expected) in documented.iter().zip(&expected) {
            assert_eq!(documented, expected, "docs/protocol.md");
        }
        assert_eq!(documented.len(), expected.len(), "docs/protocol.md");
    }

    /// A row without the fields of the request, which are for readers only.
    fn columns(line: &str) -> Vec<String> {
        let mut columns: Vec<_> = line
            .trim_matches('|')
            .split('|')
            .map(|column| column.trim().to_owned())
            .collect();
        columns.remove(1);
        columns
    }

    fn documentation(row: &Row) -> Vec<String> {
        let who_may = match row.circle {
            Circle::Known => "every certificate",
            Circle::Machines => "machines",
            Circle::Claimant => "the machine that claims the workload",
            Circle::Operators => "admins, operators",
            Circle::Admins => "admins",
            Circle::Strangers => "strangers",
        };
        let change = match row.effect {
            Effect::Read => "no",
            Effect::Change => "yes",
        };
        let answered_by = match row.answered_by {
            Answerer::Any => "any machine",
            Answerer::Holder => "a machine that holds the store",
        };
        let answers = match row.answers {
            Answers::One => "one",
            Answers::Many => "many",
            Answers::Session => "a session",
        };
        let name = format!("`{}`", row.operation.name());
        let columns = [&name, who_may, change, answered_by, answers];
        columns.map(str::to_owned).to_vec()
    }
}
