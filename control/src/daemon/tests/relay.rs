//! Requests that another machine passes on: whoever passes them on has no part in what is allowed.

use ployz_api::client::{Session, connect};
use ployz_api::{Code, Credential, Destination, Outcome, Request, Role};
use tokio::time::Instant;

use super::cluster::{Cluster, Host, payload, refused, through};
use super::server::{certified, label};
use crate::testkit::{PATIENCE, run, wait_until};

async fn session(host: &Host, credential: Credential) -> Session {
    let credential = Credential {
        endpoints: vec![host.machine.config.listen],
        ..credential
    };
    connect(&credential, Instant::now() + PATIENCE)
        .await
        .unwrap()
}

async fn relayed(
    session: &Session,
    known_as: &Credential,
    to: &Destination,
    request: &Request,
) -> Outcome {
    match session
        .relay(&through(known_as, to), request)
        .await
        .unwrap()
    {
        Ok(answers) => answers.only().await.unwrap().into(),
        Err(refusal) => (*refusal).into(),
    }
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn the_role_that_counts_is_the_inner_callers_whoever_has_made_the_connection() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let [founder, member] = &cluster.hosts[..] else {
            panic!("two machines");
        };
        let coordinator = Destination::Coordinator;
        let (_, reader) = certified(founder, Role::Reader).await;
        let (id, operator) = certified(founder, Role::Operator).await;
        // An admin's connection to the founder, and through the member a machine's.
        let admins = session(founder, founder.credential()).await;
        let machines = session(member, member.credential()).await;
        for between in [&admins, &machines] {
            let read = relayed(between, &reader, &coordinator, &Request::MachineList).await;
            assert_eq!(payload!(read, MachineList).rows.len(), 2);
            let written = relayed(between, &reader, &coordinator, &label("m1")).await;
            refused(
                written,
                Code::Forbidden,
                "role reader may not ask for machine-label",
            );
            relayed(between, &operator, &coordinator, &label("m1"))
                .await
                .unwrap();
            let certify = Request::CredentialList;
            let certified = relayed(between, &operator, &coordinator, &certify).await;
            refused(
                certified,
                Code::Forbidden,
                "role operator may not ask for credential-list",
            );
        }
        // The trail has the caller, and not the machine between.
        let events = Request::Events {
            follow: false,
            limit: 10,
            machine: None,
        };
        let list = payload!(founder.ask(events).await, EventList);
        let labels = list.events.iter().filter(|it| it.code == Code::Ok);
        for event in labels.filter(|it| it.target == "m1") {
            assert_eq!(
                (event.role, event.subject.as_str()),
                (Role::Operator, id.to_string().as_str())
            );
        }
        assert!(list.events.iter().filter(|it| it.target == "m1").count() >= 2);

        let revoke = Request::CredentialRevoke { credential_id: id };
        founder.ask(revoke).await.unwrap();
        let known = ployz_api::CertificateName {
            subject: id.to_string(),
            role: Role::Operator,
            network: operator.network.clone(),
        };
        let network = founder.machine.network().unwrap();
        wait_until("the revocation to be known", PATIENCE, || {
            !network.view().believes(&known, "")
        })
        .await;
        for between in [&admins, &machines] {
            let answer = relayed(between, &operator, &coordinator, &Request::MachineList).await;
            refused(answer, Code::Forbidden, "revoked");
        }
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_relay_leads_to_one_machine_and_no_further() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let [founder, member] = &cluster.hosts[..] else {
            panic!("two machines");
        };
        let admin = founder.credential();
        let between = session(founder, founder.credential()).await;
        for (wanted, code) in [
            ("m", Code::MachineAmbiguous),
            ("", Code::MachineNotFound),
            ("m9", Code::MachineNotFound),
        ] {
            let nowhere = Destination::Machine(wanted.to_owned());
            let answer = relayed(&between, &admin, &nowhere, &Request::Status).await;
            refused(answer, code, "ployzctl machine ls");
        }
        for (name, host) in [("m1", founder), ("m2", member)] {
            let to = Destination::Machine(name.to_owned());
            let status = relayed(&between, &admin, &to, &Request::Status).await;
            assert_eq!(payload!(status, Status).id, host.id());
            let onward = Request::Relay {
                destination: Destination::Coordinator,
            };
            let words = "cannot be made within a relayed session";
            let answer = relayed(&between, &admin, &to, &onward).await;
            refused(answer, Code::InvalidArgument, words);
            let answer = relayed(&between, &admin, &to, &Request::Relayed).await;
            refused(
                answer,
                Code::Forbidden,
                "role admin may not ask for relayed",
            );
        }
        // What goes to a machine that does not hold the store is still not its to answer.
        let to = Destination::Machine("m2".to_owned());
        let answer = relayed(&between, &admin, &to, &Request::CredentialList).await;
        refused(answer, Code::Unsupported, "authority storage");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_relay_to_a_machine_that_has_stopped_says_who_it_is_that_cannot_be_reached() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let [founder, member] = &cluster.hosts[..] else {
            panic!("two machines");
        };
        let own = session(member, founder.credential()).await;
        member.ask(Request::MeshStop { force: true }).await.unwrap();
        // On a connection that is older than the stop, whoever asks for something of the network is told so.
        let late = own.open(&Request::MachineList).await.unwrap();
        let late = late.only().await.unwrap();
        refused(late.into(), Code::NetworkNotRunning, "ployzctl mesh start");
        let between = session(founder, founder.credential()).await;
        let to = Destination::Machine("m2".to_owned());
        let answer = relayed(&between, &founder.credential(), &to, &Request::Status).await;
        refused(answer, Code::MachineUnreachable, "ployzctl doctor");
    });
}
