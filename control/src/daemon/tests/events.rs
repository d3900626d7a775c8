//! The audit trail: read, and followed as it goes on.

use ployz_api::client::{ClientError, connect};
use ployz_api::{Code, Credential, Operation, Outcome, Payload, Request, Role};
use tokio::time::Instant;

use super::cluster::{Cluster, payload, refused};
use super::server::{ask, certified, label};
use crate::testkit::{PATIENCE, run};

const FOLLOW: Request = Request::Events {
    follow: true,
    limit: 2,
    machine: None,
};

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn the_last_events_are_told_in_their_order_and_what_only_reads_leaves_none() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        for machine in ["m1", "m7", "m8", "m9"] {
            let _refused_but_one = host.ask_remotely(&label(machine)).await;
        }
        host.ask_remotely(&Request::MachineList).await.unwrap();
        let events = async |limit| {
            let follow = false;
            let request = Request::Events {
                follow,
                limit,
                machine: None,
            };
            payload!(host.ask_remotely(&request).await, EventList).events
        };
        let targets = |events: &[ployz_api::Event]| {
            let targets = events.iter().map(|it| it.target.clone());
            targets.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(targets(&events(3).await), "m7 m8 m9");
        let all = events(u32::MAX).await;
        assert_eq!(targets(&all), "m1 m7 m8 m9");
        assert!(all.iter().all(|it| it.operation == Operation::MachineLabel));
        assert!(all.iter().all(|it| it.machine == host.id()));
        assert!(all[0].message.contains("labels of m1"), "{:?}", all[0]);
        let of = async |machine: String| {
            let request = Request::Events {
                follow: false,
                limit: 2,
                machine: Some(machine),
            };
            host.ask_remotely(&request).await
        };
        for machine in ["m1".to_owned(), host.id().to_string()] {
            let events = payload!(of(machine).await, EventList).events;
            assert_eq!(targets(&events), "m8 m9");
        }
        // A machine that was removed is known by its id alone.
        let gone = ployz_api::MachineId::new(1, 1).to_string();
        assert!(payload!(of(gone).await, EventList).events.is_empty());
        refused(
            of("m9".to_owned()).await,
            Code::MachineNotFound,
            "no machine 'm9'",
        );
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn whoever_follows_hears_each_new_event_until_the_credential_is_revoked() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        host.ask_remotely(&label("m1")).await.unwrap();
        let (credential_id, reader) = certified(host, Role::Reader).await;
        let session = connect(&reader, Instant::now() + PATIENCE).await.unwrap();
        let mut answers = session.open(&FOLLOW).await.unwrap();
        let mut answer = async || answers.next().await;
        let mut next = async || Outcome::from(answer().await.unwrap().unwrap());
        let first = payload!(next().await, EventList);
        assert_eq!(first.events.len(), 1);
        // Of these, one is refused: that is an event as well.
        for (machine, code) in [("m1", Code::Ok), ("m9", Code::MachineNotFound)] {
            let _either = host.ask_remotely(&label(machine)).await;
            let event = payload!(next().await, Event);
            assert_eq!((event.target.as_str(), event.code), (machine, code));
        }
        host.ask(Request::CredentialRevoke { credential_id })
            .await
            .unwrap();
        // The last word may be the stream's or the connection's.
        match tokio::time::timeout(PATIENCE, answer()).await.unwrap() {
            Ok(last) => refused(last.unwrap().into(), Code::Forbidden, "has been revoked"),
            Err(ClientError::Refused(why)) => assert!(why.contains("has been revoked"), "{why}"),
            Err(other) => panic!("{other}"),
        }
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn followers_are_bounded_by_holder_and_in_all_and_admins_have_room_of_their_own() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let mut following = Vec::new();
        let begun = async |credential: &Credential| {
            let session = connect(credential, Instant::now() + PATIENCE)
                .await
                .unwrap();
            let mut answers = session.open(&FOLLOW).await.unwrap();
            let first = Outcome::from(answers.next().await.unwrap().unwrap());
            (first, answers, session)
        };
        // Three readers have all that is not for admins, one has its own share.
        let mut follow = async |credential: &Credential, count: usize, max: &str| {
            for _ in 0..count {
                let (first, answers, session) = begun(credential).await;
                let payload = first.unwrap().payload;
                assert!(matches!(payload, Some(Payload::EventList(_))));
                following.push((answers, session));
            }
            let (first, ..) = begun(credential).await;
            refused(first, Code::Busy, &format!("{max} other clients"));
        };
        let mut readers = Vec::new();
        for _ in 0..4 {
            readers.push(certified(host, Role::Reader).await.1);
        }
        for reader in &readers[..3] {
            follow(reader, 4, "4").await;
        }
        follow(&readers[3], 0, "12").await;
        follow(&host.credential(), 4, "16").await;
        let (_, admin) = certified(host, Role::Admin).await;
        follow(&admin, 0, "16").await;
        // Followers take no permit of those that a daemon waits for when it stops.
        let permits = host.requests.available_permits();
        assert_eq!(permits, crate::server::REQUESTS_MAX as usize);
        let (answers, session) = following.pop().unwrap();
        drop(answers);
        session.close().await;
        let free = async { while begun(&admin).await.0.is_err() {} };
        tokio::time::timeout(PATIENCE, free).await.unwrap();
    });
}

/// A secret is nowhere in the trail, whoever reads it.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn what_a_change_has_made_is_in_the_trail_by_its_id_and_never_with_its_secret() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let invite = Request::InviteCreate(ployz_api::InviteRequest::lasting(60));
        let invite = payload!(host.ask_remotely(&invite).await, Invite);
        let certify = Request::CredentialCreate(ployz_api::CredentialRequest {
            role: Role::Reader,
            ttl_secs: None,
            name: None,
        });
        let made = payload!(host.ask_remotely(&certify).await, Credential);
        let events = Request::Events {
            follow: false,
            limit: 10,
            machine: None,
        };
        let list = payload!(ask(&made.context.credential, &events).await, EventList);
        let targets: Vec<_> = list.events.iter().map(|it| it.target.as_str()).collect();
        let expected = [invite.invite_id.to_string(), made.credential_id.to_string()];
        assert_eq!(targets, expected);
        let text = serde_json::to_string(&list).unwrap();
        assert!(!text.contains(invite.token.expose()), "{text}");
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    });
}
