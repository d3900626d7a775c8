//! The server with clients of every role, over QUIC.

use std::collections::BTreeMap;

use ployz_api::client::{ClientError, connect};
use ployz_api::{
    Code, Credential, CredentialRequest, Destination, Outcome, Payload, Request, Role,
};
use tokio::time::Instant;

use super::cluster::{Cluster, Host, through};
use crate::testkit::{PATIENCE, run, wait_until};

/// A person's credential of this role.
pub(super) async fn certified(host: &Host, role: Role) -> (ployz_api::CredentialId, Credential) {
    let request = Request::CredentialCreate(CredentialRequest {
        role,
        ttl_secs: None,
        name: None,
    });
    match host.ask(request).await.unwrap().payload {
        Some(Payload::Credential(made)) => (made.credential_id, made.context.credential),
        other => panic!("{other:?}"),
    }
}

/// Asks with a credential, on a connection of its own.
pub(super) async fn ask(credential: &Credential, request: &Request) -> Outcome {
    let session = connect(credential, Instant::now() + PATIENCE)
        .await
        .unwrap();
    let answer = session.open(request).await.unwrap().only().await.unwrap();
    session.close().await;
    Outcome::from(answer)
}

/// A change of a machine's labels.
pub(super) fn label(machine: &str) -> Request {
    Request::MachineLabel {
        machine: machine.to_owned(),
        labels: BTreeMap::from([("a".parse().unwrap(), Some("b".parse().unwrap()))]),
    }
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn each_role_does_what_it_may_until_its_credential_is_revoked() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        for (role, may_label, may_certify) in [
            (Role::Reader, false, false),
            (Role::Operator, true, false),
            (Role::Admin, true, true),
        ] {
            let (id, credential) = certified(host, role).await;
            assert!(
                ask(&credential, &Request::MachineList).await.is_ok(),
                "{role:?}"
            );
            let code = |outcome: Outcome| outcome.err().map(|failure| failure.code);
            let refused = Some(Code::Forbidden);
            let labelled = code(ask(&credential, &label("m1")).await);
            assert_eq!(labelled, refused.filter(|_| !may_label), "{role:?}");
            let listed = code(ask(&credential, &Request::CredentialList).await);
            assert_eq!(listed, refused.filter(|_| !may_certify), "{role:?}");
            // On a connection that is older than the revocation.
            let session = connect(&credential, Instant::now() + PATIENCE)
                .await
                .unwrap();
            host.ask(Request::CredentialRevoke { credential_id: id })
                .await
                .unwrap();
            let known = ployz_api::CertificateName {
                subject: id.to_string(),
                role,
                network: credential.network.clone(),
            };
            let network = host.machine.network().unwrap();
            wait_until("the revocation to be known", PATIENCE, || {
                !network.view().believes(&known, "")
            })
            .await;
            let asking = async { session.open(&Request::MachineList).await?.only().await };
            let answer = asking.await;
            assert!(
                matches!(answer, Err(ClientError::Refused(_))),
                "{role:?}: {answer:?}"
            );
            // And on a new one.
            let session = connect(&credential, Instant::now() + PATIENCE)
                .await
                .unwrap();
            let asking = async { session.open(&Request::MachineList).await?.only().await };
            let answer = asking.await;
            assert!(
                matches!(answer, Err(ClientError::Refused(_))),
                "{role:?}: {answer:?}"
            );
        }
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_change_is_in_the_audit_trail_with_its_caller_and_a_refusal_is_counted() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        host.ask_remotely(&label("m1")).await.unwrap();
        let missing = host.ask_remotely(&label("m9")).await.unwrap_err();
        assert_eq!(missing.code, Code::MachineNotFound);
        let events = Request::Events {
            follow: false,
            limit: 10,
            machine: None,
        };
        let Some(Payload::EventList(list)) = host.ask_remotely(&events).await.unwrap().payload
        else {
            panic!("a list of events");
        };
        let labels: Vec<_> = list
            .events
            .iter()
            .filter(|it| it.operation == ployz_api::Operation::MachineLabel)
            .map(|it| (it.target.as_str(), it.code, it.role))
            .collect();
        let expected = [
            ("m1", Code::Ok, Role::Admin),
            ("m9", Code::MachineNotFound, Role::Admin),
        ];
        assert_eq!(labels, expected);
        assert_eq!(host.machine.refusals.counts()["MACHINE_NOT_FOUND"], 1);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_member_forwards_to_a_machine_that_holds_the_store_and_answers_none_of_it_itself() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let [founder, member] = &cluster.hosts[..] else {
            panic!("two machines");
        };
        let (_, mut operator) = certified(founder, Role::Operator).await;
        operator.endpoints = vec![member.machine.config.listen];
        let direct = ask(&operator, &label("m1")).await.unwrap_err();
        assert_eq!(
            direct.code,
            Code::Unsupported,
            "the member does not hold the store"
        );
        let session = connect(&operator, Instant::now() + PATIENCE).await.unwrap();
        let request = label("m1");
        let relayed = through(&operator, &Destination::Coordinator);
        let answer = session
            .relay(&relayed, &request)
            .await
            .unwrap()
            .unwrap()
            .only()
            .await
            .unwrap();
        assert!(Outcome::from(answer).is_ok());
        let nowhere = Destination::Machine("m9".to_owned());
        let refused = session
            .relay(&through(&operator, &nowhere), &Request::Status)
            .await
            .unwrap();
        let refused = Outcome::from(*refused.unwrap_err()).unwrap_err();
        assert_eq!(refused.code, Code::MachineNotFound);
    });
}
