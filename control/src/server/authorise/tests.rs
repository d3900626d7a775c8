use std::collections::BTreeSet;

use ployz_api::{InstanceId, Operation, REQUESTS, Row};
use ployz_core::MachineRecord;

use super::*;
use crate::host::identity::Identity;
use crate::testkit::{Offline, record, run};

/// Every request as it comes over the wire.
const REQUESTS_ON_THE_WIRE: &str = include_str!("requests.jsonl");

fn requests() -> Vec<Request> {
    let lines = REQUESTS_ON_THE_WIRE.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

fn caller(subject: &str, role: Role, network: &Network) -> CertificateName {
    CertificateName {
        subject: subject.to_owned(),
        role,
        network: network.membership.network_id.to_string(),
    }
}

/// A network of a machine that holds the store, one that does not, and one that claims the workload of the volume
/// request.
struct Network3 {
    offline: Offline,
    records: [MachineRecord; 3],
}

impl Network3 {
    fn new() -> Self {
        let machine = |number| record(&Identity::generate().unwrap(), number);
        let mut records = [machine(1), machine(2), machine(3)];
        records[0].authority = Authority::Storage;
        let claimed = "default/web".parse().unwrap();
        records[2].workloads.insert(InstanceId::new(1, 1), claimed);
        Self {
            offline: Offline::new(),
            records,
        }
    }

    async fn seen_by_holder(&self) -> Network {
        self.offline.network(true, self.records.to_vec()).await
    }

    async fn seen_by_member(&self) -> Network {
        self.offline.network(false, self.records.to_vec()).await
    }
}

#[test]
fn each_request_of_the_table_is_known_on_the_wire() {
    let known: Vec<Operation> = requests().iter().map(Request::operation).collect();
    let table: Vec<Operation> = REQUESTS.iter().map(|row| row.operation).collect();
    assert_eq!(known, table);
}

/// The whole table: every request, by every role, where the store is and where it is not.
#[test]
fn no_request_is_answered_but_as_the_table_has_it() {
    run(async {
        let ground = Network3::new();
        let networks = [ground.seen_by_holder().await, ground.seen_by_member().await];
        for (network, holds) in networks.iter().zip([true, false]) {
            for request in &requests() {
                let row = request.operation().row();
                for role in Role::ALL {
                    // A machine that holds no store and claims nothing.
                    let subject = ground.records[1].id.to_string();
                    let caller = caller(&subject, role, network);
                    let answer = authorise(Some(network), &caller, request);
                    let code = answer.err().map(|failure| failure.code);
                    assert_eq!(
                        code,
                        expected(row, role, holds),
                        "{role:?} {:?}",
                        row.operation
                    );
                }
            }
        }
    });
}

fn expected(row: &Row, role: Role, holds: bool) -> Option<Code> {
    let in_circle: &[Role] = match row.circle {
        Circle::Known => &[Role::Admin, Role::Operator, Role::Reader, Role::Machine],
        Circle::Operators => &[Role::Admin, Role::Operator],
        Circle::Admins => &[Role::Admin],
        Circle::Machines => &[Role::Machine],
        Circle::Strangers => &[Role::Stranger],
        // The machine that asks is neither.
        Circle::Holders => &[],
        Circle::Claimant if role == Role::Machine => return Some(Code::Busy),
        Circle::Claimant => &[],
    };
    if !in_circle.contains(&role) {
        return Some(Code::Forbidden);
    }
    (row.answered_by == Answerer::Holder && !holds).then_some(Code::Unsupported)
}

#[test]
fn only_the_machine_that_is_meant_retires_others_or_gets_volumes() {
    run(async {
        let ground = Network3::new();
        let network = ground.seen_by_member().await;
        let [holder, other, claimant] = ground.records.each_ref().map(|it| it.id.to_string());
        let code = |request: Operation, subject: &str| {
            let request = requests().into_iter().find(|it| it.operation() == request);
            let caller = caller(subject, Role::Machine, &network);
            authorise(Some(&network), &caller, &request.unwrap())
                .err()
                .map(|it| it.code)
        };
        assert_eq!(code(Operation::MachineRetire, &holder), None);
        for subject in [&other, &claimant, &"x".to_owned()] {
            assert_eq!(
                code(Operation::MachineRetire, subject),
                Some(Code::Forbidden)
            );
        }
        assert_eq!(code(Operation::Volume, &claimant), None);
        for subject in [&holder, &other] {
            assert_eq!(code(Operation::Volume, subject), Some(Code::Busy));
        }
    });
}

#[test]
fn only_an_admin_deploys_privileged_workloads() {
    run(async {
        let ground = Network3::new();
        let network = ground.seen_by_holder().await;
        for role in Role::ALL {
            let caller = caller(&ground.records[1].id.to_string(), role, &network);
            let mut request = requests()
                .into_iter()
                .find(|it| it.operation() == Operation::WorkloadDeploy)
                .unwrap();
            let is_ok = |request: &Request| authorise(Some(&network), &caller, request).is_ok();
            let deploys = matches!(role, Role::Admin | Role::Operator);
            assert_eq!(is_ok(&request), deploys, "{role:?}");
            if let Request::WorkloadDeploy(deploy) = &mut request {
                deploy.privileged = true;
            }
            assert_eq!(is_ok(&request), role == Role::Admin, "{role:?}");
        }
    });
}

#[test]
fn a_credential_that_was_revoked_is_refused_everything_and_root_of_this_host_is_not() {
    run(async {
        let offline = Offline::new();
        let revoked = ployz_api::CredentialId::new(1, 1);
        let revocations = BTreeSet::from([revoked]);
        let network = offline.network_without(true, Vec::new(), revocations).await;
        let mut caller = caller(&revoked.to_string(), Role::Admin, &network);
        for request in &requests() {
            let refused = authorise(Some(&network), &caller, request).unwrap_err();
            assert_eq!(refused.code, Code::Forbidden, "{:?}", request.operation());
        }
        LOCAL_NETWORK.clone_into(&mut caller.network);
        assert!(authorise(Some(&network), &caller, &Request::Status).is_ok());
    });
}

#[test]
fn without_a_network_each_role_asks_what_the_table_gives_it() {
    let caller = |role| CertificateName {
        subject: "root".to_owned(),
        role,
        network: LOCAL_NETWORK.to_owned(),
    };
    for request in &requests() {
        let row = request.operation().row();
        let answer = authorise(None, &caller(Role::Admin), request);
        let is_admins = matches!(
            row.circle,
            Circle::Known | Circle::Operators | Circle::Admins
        );
        assert_eq!(answer.is_ok(), is_admins, "{:?}", row.operation);
    }
}
