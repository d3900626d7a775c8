//! Credentials of people: made, listed, and taken back.

use ployz_api::{Code, CredentialId, CredentialRequest, CredentialStatus, Outcome, Request, Role};

use super::cluster::{Cluster, Host, payload, refused};
use super::server::ask;
use crate::testkit::run;

async fn create(host: &Host, role: Role, ttl_secs: Option<u64>) -> Outcome {
    let name = Some("ann".parse().unwrap());
    let request = CredentialRequest {
        role,
        ttl_secs,
        name,
    };
    host.ask(Request::CredentialCreate(request)).await
}

async fn list(host: &Host) -> ployz_api::CredentialList {
    payload!(host.ask(Request::CredentialList).await, CredentialList)
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_credential_is_a_persons_and_lasts_as_long_as_it_says() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        for role in [Role::Machine, Role::Stranger] {
            let words = format!("not {}", role.name());
            let answer = create(host, role, None).await;
            refused(answer, Code::InvalidArgument, &words);
        }
        for ttl in [0, 315_360_001, u64::MAX] {
            let words = "without --ttl it does not expire";
            let answer = create(host, Role::Reader, Some(ttl)).await;
            refused(answer, Code::InvalidArgument, words);
        }
        assert!(list(host).await.credentials.is_empty(), "nothing is left");
        let made = payload!(create(host, Role::Reader, Some(3_600)).await, Credential);
        let for_ever = payload!(create(host, Role::Admin, None).await, Credential);
        let listed = list(host).await;
        let [first, second] = &listed.credentials[..] else {
            panic!("{listed:?}");
        };
        assert_eq!(first.credential_id, made.credential_id);
        assert_eq!(first.expires_at, Some(first.created_at + 3_600));
        assert_eq!(first.name.as_ref().unwrap().as_str(), "ann");
        assert_eq!(made.expires_at, first.expires_at);
        assert_eq!((second.role, second.expires_at), (Role::Admin, None));
        // The list knows who, and nothing that opens anything.
        let text = serde_json::to_string(&listed).unwrap();
        assert!(!text.contains("PRIVATE KEY"), "{text}");
        let credential = &made.context.credential;
        assert_eq!(credential.endpoints[0], host.machine.config.listen);
        assert_eq!(made.context.name.as_str(), "acme");
        assert!(ask(credential, &Request::MachineList).await.is_ok());
        assert!(
            ask(&for_ever.context.credential, &Request::CredentialList)
                .await
                .is_ok()
        );
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_credential_is_revoked_once_and_stays_in_the_list() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let made = payload!(create(host, Role::Operator, None).await, Credential);
        let credential_id = made.credential_id;
        let revoke = |credential_id| host.ask(Request::CredentialRevoke { credential_id });
        let revoked = revoke(credential_id).await.unwrap();
        assert_eq!(
            revoked.message,
            format!("credential {credential_id} is revoked")
        );
        let again = revoke(credential_id).await.unwrap();
        assert!(again.message.ends_with("is revoked already"), "{again:?}");
        let rows = list(host).await.credentials;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].status, CredentialStatus::Revoked);
        refused(
            revoke(CredentialId::new(1, 1)).await,
            Code::InvalidArgument,
            "ployzctl credential list",
        );
    });
}

/// The names are where the network is reached: a machine that holds the store comes before one that does not.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_credential_has_the_endpoints_of_other_machines_as_well_once_they_have_said_them() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let host = &cluster.hosts[0];
        let network = host.machine.network().unwrap();
        let other = cluster.hosts[1].id();
        cluster.hosts[1].machine.network().unwrap().report_soon();
        crate::testkit::wait_until("the report of m2", crate::testkit::PATIENCE, || {
            network.view().observed(other).is_some()
        })
        .await;
        let made = payload!(create(host, Role::Reader, None).await, Credential);
        let endpoints = made.context.credential.endpoints;
        let expected = cluster.hosts.iter().map(|it| it.machine.config.listen);
        assert_eq!(endpoints, expected.collect::<Vec<_>>());
    });
}
