//! Founding, joining, leaving and removing.

use ployz_api::{Code, Payload, Request};

use super::cluster::{Cluster, opened};
use crate::testkit::{PATIENCE, run, wait_until};

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn machines_join_and_every_one_sees_all_by_their_names_and_addresses() {
    run(async {
        let cluster = Cluster::founded(3).await;
        for host in &cluster.hosts {
            let Some(Payload::MachineList(list)) =
                host.ask(Request::MachineList).await.unwrap().payload
            else {
                panic!("a list of machines");
            };
            let seen: Vec<_> = list
                .rows
                .iter()
                .map(|row| (row.name.to_string(), row.id))
                .collect();
            let all: Vec<_> = cluster
                .hosts
                .iter()
                .map(|it| (it.name(), it.id()))
                .collect();
            assert_eq!(seen, all);
            assert!(!list.stale);
        }
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn an_invite_lets_one_machine_in_as_often_as_it_likes_and_no_other() {
    run(async {
        let mut cluster = Cluster::founded(1).await;
        let token = cluster.invite().await.unwrap();
        let import = || Request::InviteImport {
            token: ployz_api::Secret::new(token.expose().to_owned()),
        };
        let first = cluster.add_host().await;
        let joined = first.ask(import()).await.unwrap();
        assert!(
            matches!(joined.payload, Some(Payload::MachineJoin(join)) if join.status == "joined")
        );
        let again = first.ask(import()).await.unwrap();
        assert!(
            matches!(again.payload, Some(Payload::MachineJoin(join)) if join.status == "had joined before")
        );
        let second = cluster.add_host().await;
        let refused = second.ask(import()).await.unwrap_err();
        assert_eq!(refused.code, Code::InviteConsumed);
        assert!(
            second.machine.network().is_none() && second.machine.membership().unwrap().is_none()
        );
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn an_invite_that_was_revoked_or_is_another_networks_lets_nobody_in() {
    run(async {
        let mut cluster = Cluster::founded(1).await;
        let token = cluster.invite().await.unwrap();
        let invite_id = opened(&token).invite_id;
        let revoke = Request::InviteRevoke { invite_id };
        cluster.hosts[0].ask(revoke).await.unwrap();
        let host = cluster.add_host().await;
        let refused = host.ask(Request::InviteImport { token }).await.unwrap_err();
        assert_eq!(refused.code, Code::InviteRevoked);

        let other = Cluster::founded(1).await;
        let token = other.invite().await.unwrap();
        let in_a_network = &cluster.hosts[0];
        let refused = in_a_network
            .ask(Request::InviteImport { token })
            .await
            .unwrap_err();
        assert_eq!(refused.code, Code::NetworkAlreadyRunning);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_that_was_removed_is_in_no_view_and_its_certificate_counts_for_nothing() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let removed = &cluster.hosts[1];
        let remove = Request::MachineRemove {
            machine: removed.name(),
            force: true,
        };
        cluster.hosts[0].ask(remove).await.unwrap();
        wait_until("the founder to be alone", PATIENCE, || {
            cluster.hosts[0].sees() == 1
        })
        .await;
        let mut credential = removed.credential();
        credential.endpoints = vec![cluster.hosts[0].machine.config.listen];
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let session = ployz_api::client::connect(&credential, deadline).await;
        let refused = match session {
            // The handshake is complete for the client before the server has looked at who it is.
            Ok(session) => session
                .open(&Request::Status)
                .await
                .unwrap()
                .only()
                .await
                .err(),
            Err(error) => Some(error),
        };
        let refused = refused.expect("a removed machine is not answered");
        assert!(
            refused.to_string().contains("not in the network"),
            "{refused}"
        );
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_leaves_and_enters_again_and_nothing_runs_meanwhile() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let refused = host
            .ask(Request::MeshStop { force: false })
            .await
            .unwrap_err();
        assert_eq!(refused.code, Code::InvalidTransition, "it is active");
        host.ask(Request::MeshStop { force: true }).await.unwrap();
        assert!(host.machine.network().is_none() && !host.machine.nats_server().is_running());
        let listed = host.ask(Request::MachineList).await.unwrap_err();
        assert_eq!(listed.code, Code::NetworkNotRunning);
        host.ask(Request::MeshStart).await.unwrap();
        cluster.wait_seen(1).await;
        host.ask(Request::MeshDestroy {
            name: None,
            force: false,
        })
        .await
        .unwrap();
        assert!(host.machine.membership().unwrap().is_none());
        // And it can found another one.
        let found = Request::MeshInit(cluster.network("other"));
        host.ask(found).await.unwrap();
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_network_cannot_be_founded_twice_nor_where_another_one_is() {
    run(async {
        let cluster = Cluster::founded(1).await;
        let host = &cluster.hosts[0];
        let again = host
            .ask(Request::MeshInit(cluster.network("acme")))
            .await
            .unwrap();
        assert!(again.message.contains("already"), "{}", again.message);
        let other = host
            .ask(Request::MeshInit(cluster.network("other")))
            .await
            .unwrap_err();
        assert_eq!(other.code, Code::NetworkAlreadyRunning);
    });
}

/// A port that is taken is the most likely of all mistakes; what was made until then is taken back.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_founding_that_fails_leaves_nothing() {
    run(async {
        let mut cluster = Cluster::new();
        let found = Request::MeshInit(cluster.network("acme"));
        let host = cluster.add_host().await;
        let taken = std::net::UdpSocket::bind(host.machine.config.listen).unwrap();
        let refused = host.ask(found).await.unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument);
        assert!(refused.message.contains("--listen"), "{refused}");
        assert!(host.machine.membership().unwrap().is_none());
        assert!(!host.machine.files.path("ca.json").exists());
        drop(taken);
        let found = Request::MeshInit(cluster.network("acme"));
        cluster.hosts[0].ask(found).await.unwrap();
    });
}

/// The last step of a join fails, and nothing dies: the machine is a member, and the same token gets it into the
/// network.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_join_whose_last_step_failed_is_completed_by_the_same_token() {
    run(async {
        let mut cluster = Cluster::founded(1).await;
        let token = cluster.invite().await.unwrap();
        let import = || Request::InviteImport {
            token: ployz_api::Secret::new(token.expose().to_owned()),
        };
        let host = cluster.add_host().await;
        // A directory of that name cannot be replaced by a file.
        let in_the_way = host.machine.files.path(ployz_api::MEMBER_CREDENTIAL_FILE);
        std::fs::create_dir(&in_the_way).unwrap();
        assert_eq!(host.ask(import()).await.unwrap_err().code, Code::Internal);
        assert!(host.machine.network().is_none() && host.machine.membership().unwrap().is_some());
        std::fs::remove_dir(&in_the_way).unwrap();
        host.ask(import()).await.unwrap();
        cluster.wait_seen(2).await;
    });
}
