use std::collections::BTreeSet;

use ployz_api::{CertificateName, InstanceId, REQUESTS, Row, fingerprint};
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

fn name(subject: &str, role: Role, network: &Network) -> CertificateName {
    CertificateName {
        subject: subject.to_owned(),
        role,
        network: network.membership.network_id.to_string(),
    }
}

/// A caller with a certificate that ends at this time.
fn certified(name: CertificateName, expires_at: Option<u64>) -> Caller {
    let facts = Facts {
        public_key: b"a key".to_vec(),
        expires_at,
        names: Vec::new(),
    };
    Caller::named(name, Some(facts))
}

fn caller(subject: &str, role: Role, network: &Network) -> Caller {
    let end = network.unix_secs() + 60;
    certified(name(subject, role, network), Some(end))
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
        Circle::Claimant if role == Role::Machine => return Some(Code::Busy),
        Circle::Claimant => &[],
    };
    if !in_circle.contains(&role) {
        return Some(Code::Forbidden);
    }
    (row.answered_by == Answerer::Holder && !holds).then_some(Code::Unsupported)
}

#[test]
fn only_the_machine_that_is_meant_gets_volumes() {
    run(async {
        let ground = Network3::new();
        let network = ground.seen_by_member().await;
        let [holder, other, claimant] = ground.records.each_ref().map(|it| it.id.to_string());
        let code = |request: Operation, subject: &str| {
            let request = requests().into_iter().find(|it| it.operation() == request);
            let name = name(subject, Role::Machine, &network);
            let caller = certified(name, Some(network.unix_secs() + 60));
            authorise(Some(&network), &caller, &request.unwrap())
                .err()
                .map(|it| it.code)
        };
        assert_eq!(code(Operation::Volume, &claimant), None);
        for subject in [&holder, &other] {
            assert_eq!(code(Operation::Volume, subject), Some(Code::Busy));
        }
    });
}

/// A credential of six seconds made invites after 24, on a connection that was open: the end is looked at each time.
#[test]
fn a_credential_that_has_ended_is_refused_everything_on_the_connection_that_it_has() {
    run(async {
        let offline = Offline::new();
        let network = offline.network(true, Vec::new()).await;
        let subject = ployz_api::CredentialId::new(1, 1).to_string();
        let now = network.unix_secs();
        for role in [Role::Admin, Role::Operator, Role::Reader] {
            let caller = |end| certified(name(&subject, role, &network), end);
            for request in &requests() {
                let refused = authorise(Some(&network), &caller(Some(now)), request).unwrap_err();
                assert_eq!(refused.code, Code::Forbidden, "{:?}", request.operation());
                assert!(refused.message.contains("expired"), "{refused:?}");
            }
            for end in [Some(now + 60), None] {
                assert!(authorise(Some(&network), &caller(end), &Request::Status).is_ok());
            }
        }
    });
}

/// A machine that was away for long has one thing left to ask for, unless it was removed.
#[test]
fn a_machine_whose_certificate_has_ended_may_have_it_renewed_and_nothing_else() {
    use ployz_api::client::CERTIFICATE_SECS;
    run(async {
        let ground = Network3::new();
        let network = ground.seen_by_holder().await;
        let subject = ground.records[1].id.to_string();
        let (renew, status) = (Request::CertificateRenew, Request::Status);
        let asks = |name: &CertificateName, end, request| {
            let caller = certified(name.clone(), end);
            authorise(Some(&network), &caller, request).is_ok()
        };
        let member = name(&subject, Role::Machine, &network);
        let removed = name(&MachineId::new(9, 9).to_string(), Role::Machine, &network);
        // Nobody has signed anything since: without news, nothing ends.
        let end = network.unix_secs() - 1;
        assert!(asks(&member, Some(end), &status));
        // Another machine shows what was signed today.
        let today = network.unix_secs() + CERTIFICATE_SECS;
        let other = name(&ground.records[2].id.to_string(), Role::Machine, &network);
        assert!(asks(&other, Some(today), &status));
        assert!(!asks(&member, Some(end), &status) && asks(&member, Some(end), &renew));
        assert!(!asks(&removed, Some(end), &renew) && !asks(&removed, Some(today), &renew));
        // A signer whose clock is a year ahead ends no other machine's certificate.
        assert!(asks(&other, Some(today + 365 * 24 * 3600), &status));
        assert!(asks(&member, Some(network.unix_secs() + 60), &status));
    });
}

#[test]
fn root_of_a_machine_that_has_handed_the_store_over_is_an_admin_no_more() {
    run(async {
        let ground = Network3::new();
        let network = ground.seen_by_holder().await;
        let code = |id: MachineId, request: &Request| {
            let subject = format!("root-{id}");
            let caller = caller(&subject, Role::Admin, &network);
            authorise(Some(&network), &caller, request)
                .err()
                .map(|it| it.code)
        };
        let [holder, former, _] = ground.records.each_ref().map(|it| it.id);
        let settle = Request::StorageStep(StorageStep::Settle { epoch: 1 });
        for request in &requests() {
            let is_admins = matches!(
                request.operation().row().circle,
                Circle::Known | Circle::Operators | Circle::Admins
            );
            let reads = request.operation().row().circle == Circle::Known;
            let of_holder = (!is_admins).then_some(Code::Forbidden);
            assert_eq!(code(holder, request), of_holder, "{request:?}");
            let of_former = (!reads).then_some(Code::Forbidden);
            assert_eq!(code(former, request), of_former, "{request:?}");
            let removed = MachineId::new(9, 9);
            assert_eq!(code(removed, request), Some(Code::Forbidden));
        }
        assert_eq!(code(former, &settle), None);
    });
}

/// The certificates of the version before have no end. Each counts until the machine has one that does.
#[test]
fn a_certificate_without_an_end_counts_until_the_record_names_the_machines_key() {
    run(async {
        let mut ground = Network3::new();
        let (former, renewed) = (ground.records[1].id, ground.records[2].id);
        ground.records[2].certificate_key = Some(fingerprint(b"a key"));
        let network = ground.seen_by_holder().await;
        let asks = |id: MachineId, request| {
            let name = name(&id.to_string(), Role::Machine, &network);
            authorise(Some(&network), &certified(name, None), &request).is_ok()
        };
        assert!(asks(former, Request::Status));
        assert!(!asks(renewed, Request::Status));
        assert!(asks(renewed, Request::CertificateRenew));
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
        let caller = caller(&revoked.to_string(), Role::Admin, &network);
        for request in &requests() {
            let refused = authorise(Some(&network), &caller, request).unwrap_err();
            assert_eq!(refused.code, Code::Forbidden, "{:?}", request.operation());
        }
        let mut name = name(&revoked.to_string(), Role::Admin, &network);
        LOCAL_NETWORK.clone_into(&mut name.network);
        let caller = Caller::named(name, None);
        assert!(authorise(Some(&network), &caller, &Request::Status).is_ok());
    });
}

#[test]
fn without_a_network_each_role_asks_what_the_table_gives_it() {
    let caller = |role| {
        let name = CertificateName {
            subject: "root".to_owned(),
            role,
            network: LOCAL_NETWORK.to_owned(),
        };
        Caller::named(name, None)
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
