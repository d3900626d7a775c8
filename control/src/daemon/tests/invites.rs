//! Invites: made, listed, used, and taken back.

use std::collections::BTreeMap;

use ployz_api::client::ask_invited;
use ployz_api::{
    Code, InviteId, InviteList, InviteRequest, InviteStatus, Outcome, Request, Secret, TTL_SECS_MAX,
};

use super::cluster::{Cluster, Host, opened, payload, refused};
use crate::testkit::{PATIENCE, run};

async fn list(host: &Host, all: bool) -> InviteList {
    payload!(host.ask(Request::InviteList { all }).await, InviteList)
}

async fn revoke(host: &Host, invite_id: InviteId) -> Outcome {
    host.ask(Request::InviteRevoke { invite_id }).await
}

async fn import(host: &Host, token: &Secret) -> Outcome {
    let token = Secret::new(token.expose().to_owned());
    host.ask(Request::InviteImport { token }).await
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn an_invite_lasts_a_second_to_a_week_and_is_revoked_once() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let before = list(host, true).await.invites.len();
        for ttl_secs in [0, TTL_SECS_MAX + 1, u64::MAX] {
            let create = Request::InviteCreate(InviteRequest::lasting(ttl_secs));
            let expected = format!("1 to {TTL_SECS_MAX} seconds, not {ttl_secs}");
            refused(host.ask(create).await, Code::InvalidArgument, &expected);
        }
        assert_eq!(list(host, true).await.invites.len(), before);
        for ttl_secs in [1, TTL_SECS_MAX] {
            let create = Request::InviteCreate(InviteRequest::lasting(ttl_secs));
            let invite = payload!(host.ask(create).await, Invite);
            let listed = list(host, true).await;
            let row = listed.invites.last().unwrap();
            assert_eq!(row.invite_id, invite.invite_id);
            assert_eq!(row.expires_at, row.created_at + ttl_secs);
            assert_eq!(opened(&invite.token).expires_at, row.expires_at);
            let text = serde_json::to_string(&listed).unwrap();
            assert!(!text.contains(opened(&invite.token).secret.expose()));
        }
        let invite_id = opened(&cluster.invite().await.unwrap()).invite_id;
        let revoked = revoke(host, invite_id).await.unwrap();
        assert_eq!(revoked.message, format!("invite {invite_id} is revoked"));
        let again = revoke(host, invite_id).await.unwrap();
        assert!(again.message.ends_with("is revoked already"), "{again:?}");
        let active = list(host, false).await.invites;
        assert!(active.iter().all(|row| row.status == InviteStatus::Active));
        assert!(active.iter().all(|row| row.invite_id != invite_id));
        let all = list(host, true).await.invites;
        let row = all.iter().find(|row| row.invite_id == invite_id).unwrap();
        assert_eq!(row.status, InviteStatus::Revoked);
        let unknown = revoke(host, InviteId::new(1, 1)).await;
        refused(unknown, Code::InviteInvalid, "ployzctl machine invite list");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn what_an_invite_says_of_a_machine_counts_and_not_what_the_machine_says_of_itself() {
    run(async {
        let mut cluster = Cluster::founded(1).await;
        let request = InviteRequest {
            name: Some("db".parse().unwrap()),
            region: Some("far".parse().unwrap()),
            labels: BTreeMap::from([("tier".parse().unwrap(), "db".parse().unwrap())]),
            standby: true,
            ..InviteRequest::lasting(60)
        };
        let create = Request::InviteCreate(request);
        let invite = payload!(cluster.hosts[0].ask(create).await, Invite);
        let joined = import(cluster.add_host().await, &invite.token).await;
        assert_eq!(payload!(joined, MachineJoin).name.as_str(), "db");
        cluster.wait_seen(2).await;
        let list = payload!(
            cluster.hosts[0].ask(Request::MachineList).await,
            MachineList
        );
        let row = list
            .rows
            .iter()
            .find(|row| row.name.as_str() == "db")
            .unwrap();
        assert_eq!(row.id, cluster.hosts[1].id());
        assert_eq!(
            (row.region.as_str(), row.lifecycle.to_string().as_str()),
            ("far", "standby")
        );
        assert_eq!(row.labels["tier"], "db");
        // What has let somebody in stays used.
        let host = &cluster.hosts[0];
        let used = self::list(host, true).await.invites;
        let used = used.iter().find(|row| row.invite_id == invite.invite_id);
        let used = used.unwrap();
        assert_eq!(used.status, InviteStatus::Consumed);
        assert_eq!(used.consumed_by, Some(cluster.hosts[1].id()));
        refused(
            revoke(host, invite.invite_id).await,
            Code::InviteConsumed,
            "ployzctl machine invite create",
        );
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn two_machines_of_one_name_are_told_apart_by_a_number() {
    run(async {
        let mut cluster = Cluster::founded(1).await;
        for expected in ["db", "db-2"] {
            let request = InviteRequest {
                name: Some("db".parse().unwrap()),
                ..InviteRequest::lasting(60)
            };
            let create = Request::InviteCreate(request);
            let invite = payload!(cluster.hosts[0].ask(create).await, Invite);
            let joined = import(cluster.add_host().await, &invite.token).await;
            assert_eq!(payload!(joined, MachineJoin).name.as_str(), expected);
        }
    });
}

/// A stranger is not told whether it was the invite or its secret.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_secret_that_was_guessed_lets_nobody_in_and_uses_nothing_up() {
    run(async {
        let mut cluster = Cluster::founded(1).await;
        let token = cluster.invite().await.unwrap();
        let mut guessed = opened(&token);
        guessed.secret = Secret::new("00".repeat(16));
        let mut unknown = opened(&token);
        unknown.invite_id = InviteId::new(1, 1);
        let host = cluster.add_host().await;
        for wrong in [guessed, unknown] {
            let answer = import(host, &wrong.encode()).await;
            let words = "there is no such invite; ployzctl machine invite create";
            refused(answer, Code::InviteInvalid, words);
            assert!(host.machine.membership().unwrap().is_none());
        }
        let garbage = Secret::new("ployz2.garbage".to_owned());
        assert_eq!(
            import(host, &garbage).await.unwrap_err().code,
            Code::InviteInvalid
        );
        import(host, &token).await.unwrap();
    });
}

/// The token's fingerprint is all that a joining machine knows of the network.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_does_not_join_where_the_authority_is_not_the_tokens() {
    run(async {
        let mut cluster = Cluster::founded(1).await;
        let mut token = opened(&cluster.invite().await.unwrap());
        token.ca_fingerprint = ployz_api::fingerprint(b"somebody else");
        let host = cluster.add_host().await;
        let answer = import(host, &token.encode()).await;
        assert!(answer.is_err(), "{answer:?}");
        assert!(host.machine.membership().unwrap().is_none());
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_stranger_may_ask_for_nothing_but_to_be_let_in() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let token = opened(&cluster.invite().await.unwrap());
        for request in [
            Request::Status,
            Request::MachineList,
            Request::OperationList,
        ] {
            let response = ask_invited(&token, &request, PATIENCE).await.unwrap();
            refused(
                response.into(),
                Code::Forbidden,
                "role stranger may not ask for",
            );
        }
        assert_eq!(cluster.hosts[0].machine.refusals.counts()["FORBIDDEN"], 3);
        // And nobody who is in already asks to be let in.
        let redeem = serde_json::json!({
            "request": "invite-redeem", "invite_id": token.invite_id, "secret": "00",
            "machine_id": cluster.hosts[0].id(), "name": "m", "region": "local",
            "wireguard_key": "", "nkey": "", "certificate_key": "", "endpoints": [],
        });
        let redeem: Request = serde_json::from_value(redeem).unwrap();
        let answer = cluster.hosts[0].ask_remotely(&redeem).await;
        refused(
            answer,
            Code::Forbidden,
            "role admin may not ask for invite-redeem",
        );
        let answer = ask_invited(&token, &redeem, PATIENCE).await.unwrap();
        refused(
            answer.into(),
            Code::InvalidArgument,
            "wireguard_key is not a valid key",
        );
    });
}
