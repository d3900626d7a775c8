//! Removing machines that are there, that are not, and that should stay.

use ployz_api::{Code, DeployRequest, MachineRemove, Outcome, Program, Request, WorkloadSpec};

use super::cluster::{Cluster, Host, payload, refused};
use crate::testkit::{PATIENCE, run, wait_until};

async fn remove(host: &Host, machine: &str, force: bool) -> Outcome {
    let machine = machine.to_owned();
    host.ask(Request::MachineRemove { machine, force }).await
}

fn all_done(removed: &MachineRemove) -> bool {
    removed.cleanup.iter().all(|step| step.ok)
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_removes_neither_itself_nor_the_last_one_that_holds_the_store() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let [founder, member] = &cluster.hosts[..] else {
            panic!("two machines");
        };
        for force in [false, true] {
            refused(
                remove(founder, "m1", force).await,
                Code::CannotRemoveSelf,
                "ployzctl --connect",
            );
            refused(
                remove(member, "m1", force).await,
                Code::QuorumAtRisk,
                "ployzctl machine storage promote",
            );
        }
        assert_eq!((founder.sees(), member.sees()), (2, 2));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_that_is_there_cleans_up_leaves_and_can_join_again() {
    run(async {
        let cluster = Cluster::founded(2).await;
        let [founder, member] = &cluster.hosts[..] else {
            panic!("two machines");
        };
        let removed = payload!(remove(founder, "m2", false).await, MachineRemove);
        assert_eq!(removed.id, member.id());
        assert!(!removed.force && all_done(&removed), "{removed:?}");
        let steps: Vec<&str> = removed.cleanup.iter().map(|it| it.step.as_str()).collect();
        for expected in ["workloads", "mesh", "daemon", "record"] {
            assert!(steps.contains(&expected), "no {expected} in {steps:?}");
        }
        let again = remove(founder, "m2", false).await;
        refused(again, Code::MachineNotFound, "ployzctl machine ls");
        wait_until("the member to have left", PATIENCE, || {
            member.machine.network().is_none()
        })
        .await;
        assert!(member.machine.membership().unwrap().is_none());
        assert_eq!(founder.sees(), 1);
        refused(
            member.ask(Request::MachineList).await,
            Code::NetworkNotRunning,
            "ployzctl machine invite import",
        );
        let token = cluster.invite().await.unwrap();
        member.ask(Request::InviteImport { token }).await.unwrap();
        cluster.wait_seen(2).await;
    });
}

/// It has no engine that would stop its workload: it must not go and leave a container behind.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_that_cannot_clean_up_stays_and_force_removes_it_with_what_it_held() {
    run(async {
        let cluster = Cluster::founded_without_engines(2).await;
        let [founder, member] = &cluster.hosts[..] else {
            panic!("two machines");
        };
        let deploy = Request::WorkloadDeploy(DeployRequest {
            privileged: false,
            workload: "default/web".parse().unwrap(),
            machine: Some("m2".to_owned()),
            spec: WorkloadSpec {
                program: Program::Image("web:1".to_owned()),
                env: Default::default(),
                volumes: Default::default(),
                publish: Vec::new(),
            },
        });
        founder.ask(deploy).await.unwrap();
        wait_until("the machine to have its workload", PATIENCE, || {
            !member.machine.workloads.states().is_empty()
        })
        .await;
        let failed = remove(founder, "m2", false).await;
        refused(failed, Code::Internal, "ployzctl machine rm --force m2");
        assert_eq!(founder.sees(), 2);
        assert!(member.machine.membership().unwrap().is_some());
        assert!(
            member.machine.network().is_some(),
            "and it takes part as before"
        );

        let removed = payload!(remove(founder, "m2", true).await, MachineRemove);
        assert!(removed.force && all_done(&removed), "{removed:?}");
        let records = removed
            .cleanup
            .iter()
            .find(|it| it.step == "workload records");
        assert_eq!(records.unwrap().message, "1 deleted");
        let inspect = Request::WorkloadInspect {
            workload: "default/web".parse().unwrap(),
        };
        refused(
            founder.ask(inspect).await,
            Code::WorkloadNotFound,
            "ployzctl workload ls",
        );
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_that_is_away_stays_until_it_is_forced_out() {
    run(async {
        let mut cluster = Cluster::founded(2).await;
        let away = cluster.hosts.remove(1);
        away.kill().await;
        let founder = &cluster.hosts[0];
        refused(
            remove(founder, "m2", false).await,
            Code::MachineUnreachable,
            "ployzctl machine rm --force m2",
        );
        assert_eq!(founder.sees(), 2);
        let removed = payload!(remove(founder, "m2", true).await, MachineRemove);
        assert!(all_done(&removed), "{removed:?}");
        assert_eq!(founder.sees(), 1);
        assert!(
            away.machine.membership().unwrap().is_some(),
            "it could not hear of it"
        );
    });
}
