//! One client that takes all it can get: what is left for the others, and how it ends.

use std::time::Duration;

use futures_util::future::join_all;
use ployz_api::client::connect;
use ployz_api::{
    Credential, Destination, HEADER_LEN, NO_MEMBER, Outcome, RESPONSE_LEN_MAX, Request, Response,
    Role, encode,
};
use quinn::{ConnectionError, VarInt};
use tokio::time::Instant;

use super::cluster::{Cluster, Host, through};
use super::server::{ask, certified};
use super::streams::Raw;
use crate::testkit::{PATIENCE, run};

/// More than any one holder may have.
const MANY: usize = 40;
/// Connections of one person, and of one machine.
const PERSON_MAX: usize = 8;
const MACHINE_MAX: usize = 16;
/// News takes milliseconds; the rest is for a busy processor.
const AT_ONCE: Duration = Duration::from_secs(2);

/// The connections that a holder is heard on, out of [`MANY`].
async fn hoard(credential: &Credential) -> Vec<Raw> {
    let mut heard = Vec::new();
    for _ in 0..MANY {
        let raw = Raw::connect(credential).await;
        if is_heard(&raw).await {
            heard.push(raw);
        }
    }
    heard
}

async fn is_heard(raw: &Raw) -> bool {
    let asking = async {
        let (mut send, mut receive) = raw.connection.open_bi().await.ok()?;
        let request = encode(&Request::Status, HEADER_LEN + 1_024).ok()?;
        send.write_all(&request).await.ok()?;
        send.finish().ok()?;
        let answer = receive.read_to_end(RESPONSE_LEN_MAX).await.ok()?;
        let response: Response = serde_json::from_slice(answer.get(HEADER_LEN..)?).ok()?;
        Some(response.ok)
    };
    asking.await == Some(true)
}

/// Waits until all of them are closed because their holder is believed no more.
async fn all_are_closed(hoard: &[Raw]) {
    let closed = join_all(hoard.iter().map(|raw| raw.connection.closed()));
    let closed = tokio::time::timeout(AT_ONCE, closed)
        .await
        .expect("in time");
    for cause in closed {
        let ConnectionError::ApplicationClosed(close) = cause else {
            panic!("{cause}");
        };
        assert_eq!(close.error_code, VarInt::from_u32(NO_MEMBER), "{close}");
    }
}

fn at(host: &Host, credential: &Credential) -> Credential {
    let text = serde_json::to_string(credential).unwrap();
    let credential: Credential = serde_json::from_str(&text).unwrap();
    Credential {
        endpoints: vec![host.machine.config.listen],
        ..credential
    }
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn one_holder_has_a_share_and_loses_all_of_it_with_its_credential_on_every_machine() {
    run(async {
        let mut cluster = Cluster::founded(2).await;
        let (id, reader) = certified(&cluster.hosts[0], Role::Reader).await;
        let (_, other) = certified(&cluster.hosts[0], Role::Reader).await;
        let mut held = Vec::new();
        for host in &cluster.hosts {
            let hoard = hoard(&at(host, &reader)).await;
            assert_eq!(hoard.len(), PERSON_MAX);
            held.extend(hoard);
        }
        ask(&other, &Request::Status).await.unwrap();
        cluster.join().await.expect("joiners have room");
        let founder = &cluster.hosts[0];
        founder.ask_remotely(&Request::Status).await.unwrap();
        let revoke = Request::CredentialRevoke { credential_id: id };
        founder.ask_remotely(&revoke).await.unwrap();
        all_are_closed(&held).await;
        let counts = founder.machine.refusals.counts();
        assert_eq!(counts["holder"], (MANY - PERSON_MAX) as u64, "{counts:?}");
        ask(&other, &Request::Status).await.unwrap();
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_has_a_share_and_loses_all_of_it_when_it_is_removed() {
    run(async {
        let cluster = Cluster::founded(3).await;
        let [founder, second, third] = &cluster.hosts[..] else {
            panic!("three machines");
        };
        let own = third.credential();
        let mut held = Vec::new();
        for host in [founder, second] {
            let hoard = hoard(&at(host, &own)).await;
            assert_eq!(hoard.len(), MACHINE_MAX);
            held.extend(hoard);
        }
        third.kill().await;
        let remove = Request::MachineRemove {
            machine: "m3".to_owned(),
            force: true,
        };
        founder.ask(remove).await.unwrap();
        all_are_closed(&held).await;
    });
}

/// A machine between two that has not been removed itself: it forwards nothing of one that has.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_session_with_a_machine_ends_when_that_is_removed() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let founder = &cluster.hosts[0];
        let (_, reader) = certified(founder, Role::Reader).await;
        let session = connect(&reader, Instant::now() + PATIENCE).await.unwrap();
        let to = Destination::Machine("m2".to_owned());
        let follow = Request::Events {
            follow: true,
            limit: 1,
            machine: None,
        };
        let relayed = session
            .relay(&through(&reader, &to), &follow)
            .await
            .unwrap();
        let mut answers = relayed.unwrap();
        answers.next().await.unwrap().unwrap();
        let remove = Request::MachineRemove {
            machine: "m2".to_owned(),
            force: true,
        };
        founder.ask(remove).await.unwrap();
        let end = async { while let Ok(Some(_event)) = answers.next().await {} };
        tokio::time::timeout(AT_ONCE, end).await.expect("in time");
    });
}

/// A detour is no way around the share: the machine that answers counts the caller, whoever forwards it.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_follower_through_another_machine_is_counted_and_ended_as_any_other() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let [founder, member] = &cluster.hosts[..] else {
            panic!("two machines");
        };
        let (id, reader) = certified(founder, Role::Reader).await;
        let between = at(member, &reader);
        let session = connect(&between, Instant::now() + PATIENCE).await.unwrap();
        let to = Destination::Machine("m1".to_owned());
        let follow = Request::Events {
            follow: true,
            limit: 1,
            machine: None,
        };
        let mut following = Vec::new();
        // As many as one holder may have forwarded.
        for _ in 0..4 {
            let relayed = session
                .relay(&through(&reader, &to), &follow)
                .await
                .unwrap();
            let mut answers = relayed.unwrap();
            let first = Outcome::from(answers.next().await.unwrap().unwrap());
            first.unwrap();
            following.push(answers);
        }
        let fifth = session.relay(&through(&reader, &to), &follow).await;
        let busy = fifth
            .expect_err("that is as many as it may have")
            .to_string();
        assert!(busy.contains("4 at most"), "{busy}");
        let revoke = Request::CredentialRevoke { credential_id: id };
        founder.ask(revoke).await.unwrap();
        for answers in &mut following {
            let last = tokio::time::timeout(AT_ONCE, answers.next()).await;
            let is_refusal = match last.expect("in time") {
                Ok(Some(last)) => !last.ok,
                Ok(None) | Err(_) => true,
            };
            assert!(is_refusal, "it goes on");
        }
    });
}
