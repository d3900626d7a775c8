//! The network of a machine: drawn up, started, stopped and forgotten.

use ployz_api::{Code, MeshInitRequest, NetworkState, Outcome, Request};

use super::cluster::{Cluster, Host, payload, refused};
use crate::testkit::run;

const TO_GET_IN: &str =
    "ployzctl mesh init <name>, or ployzctl machine invite import --token-stdin";

async fn destroy(host: &Host, name: Option<&str>, force: bool) -> Outcome {
    let name = name.map(|name| name.parse().unwrap());
    host.ask(Request::MeshDestroy { name, force }).await
}

/// Requests that take a network, by a machine that is in none.
async fn assert_in_none(host: &Host, hint: &str) {
    let machine = || "m1".to_owned();
    for request in [
        Request::MachineList,
        Request::MachineInspect { machine: machine() },
        Request::MachineDrain { machine: machine() },
        Request::MachineRemove {
            machine: machine(),
            force: true,
        },
        Request::MachineRetire { decision: None },
        Request::WorkloadList,
        Request::StorageList,
        Request::InviteList { all: true },
        Request::CredentialList,
        Request::OperationList,
        Request::Events {
            follow: false,
            limit: 1,
            machine: None,
        },
        Request::Doctor {
            machine: Some(machine()),
        },
        Request::RttReport {
            peers: Vec::new(),
            count: None,
        },
    ] {
        let operation = request.operation();
        let answer = host.ask(request).await;
        assert!(answer.is_err(), "{operation:?}");
        refused(answer, Code::NetworkNotRunning, hint);
    }
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_network_is_drawn_up_first_and_started_later_and_nothing_is_served_before() {
    run(async {
        let mut cluster = Cluster::new();
        cluster.add_host().await;
        let host = &cluster.hosts[0];
        assert_in_none(host, TO_GET_IN).await;
        for request in [Request::MeshStart, Request::MeshStop { force: true }] {
            refused(host.ask(request).await, Code::NetworkNotRunning, TO_GET_IN);
        }
        let nothing = destroy(host, None, false).await.unwrap();
        assert_eq!(nothing.message, "this machine is in no network");

        let create = |name| Request::MeshCreate(cluster.network(name));
        let created = host.ask(create("acme")).await.unwrap();
        assert!(
            created.message.contains("ployzctl mesh start"),
            "{created:?}"
        );
        let id = payload!(Ok(created), MeshInit).network_id;
        let again = host.ask(create("acme")).await.unwrap();
        assert_eq!(again.message, "network acme is created here already");
        assert_eq!(payload!(Ok(again), MeshInit).network_id, id);
        for other in [create("other"), Request::MeshInit(cluster.network("other"))] {
            let words = "ployzctl mesh status";
            refused(host.ask(other).await, Code::NetworkAlreadyRunning, words);
        }
        assert_in_none(host, "ployzctl mesh start").await;

        let started = payload!(host.ask(Request::MeshStart).await, MeshInit);
        assert_eq!(started.network_id, id);
        assert!(
            started.invite.is_some(),
            "the founder is told how others get in"
        );
        let again = host.ask(Request::MeshStart).await.unwrap();
        assert_eq!(again.message, "network acme is running here already");
        assert!(payload!(Ok(again), MeshInit).invite.is_none());
        cluster.wait_seen(1).await;
        let status = payload!(host.ask(Request::Status).await, Status);
        assert_eq!(status.network_state, Some(NetworkState::Running));
        assert_eq!((status.network_id, status.removed), (Some(id), false));
        assert_eq!(status.control.machines, 1);

        host.ask(Request::MeshStop { force: true }).await.unwrap();
        let again = host.ask(Request::MeshStop { force: false }).await.unwrap();
        assert_eq!(again.message, "network acme is stopped here already");
        assert_in_none(host, "ployzctl mesh start").await;
        let status = payload!(host.ask(Request::Status).await, Status);
        assert_eq!(status.network_state, Some(NetworkState::Stopped));
        assert!(!status.control.connected && status.lifecycle.is_none());
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_network_is_forgotten_by_its_name_and_not_while_it_has_other_machines() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let [founder, member] = &cluster.hosts[..] else {
            panic!("two machines");
        };
        let wrong = destroy(founder, Some("other"), true).await;
        refused(wrong, Code::NetworkMismatch, "ployzctl mesh list");
        let others = destroy(founder, Some("acme"), false).await;
        refused(others, Code::Conflict, "ployzctl machine rm m2");
        let held = destroy(member, None, false).await;
        refused(
            held,
            Code::Unsupported,
            "ployzctl machine rm m2 (on a machine",
        );
        assert_eq!((founder.sees(), member.sees()), (2, 2));
        // Also while it is stopped: then what was saved of it says who is there.
        founder
            .ask(Request::MeshStop { force: true })
            .await
            .unwrap();
        let others = destroy(founder, None, false).await;
        refused(others, Code::Conflict, "m2");
        destroy(member, Some("acme"), true).await.unwrap();
        assert!(member.machine.membership().unwrap().is_none());
        destroy(founder, None, true).await.unwrap();
        assert!(!founder.machine.files.path("ca.json").exists());
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_network_that_has_no_room_for_machines_is_not_founded_and_leaves_nothing() {
    run(async {
        let mut cluster = Cluster::new();
        cluster.add_host().await;
        let host = &cluster.hosts[0];
        for prefix_len in [0, 8, 19, 32, 33, 255] {
            for make in [Request::MeshInit, Request::MeshCreate] {
                let request = MeshInitRequest {
                    subnet_prefix_len: Some(prefix_len),
                    ..cluster.network("acme")
                };
                let refused = host.ask(make(request)).await.unwrap_err();
                assert_eq!(
                    refused.code,
                    Code::InvalidArgument,
                    "{prefix_len}: {refused}"
                );
                assert!(host.machine.membership().unwrap().is_none());
                assert!(!host.machine.files.path("ca.json").exists());
            }
        }
    });
}
