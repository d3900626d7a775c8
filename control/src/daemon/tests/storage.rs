//! Who holds the store, and plans to change that which are not carried out.

use ployz_api::{Authority, Code, Outcome, Request, StoragePromotion, StorageRequest};

use super::cluster::{Cluster, Host, payload, refused};
use crate::testkit::{PATIENCE, run, wait_until};

fn request(machines: &[&str], replicas: Option<u32>, dry_run: bool) -> StorageRequest {
    StorageRequest {
        machines: machines.iter().map(|it| (*it).to_owned()).collect(),
        replicas,
        dry_run,
    }
}

async fn promote(host: &Host, machines: &[&str], replicas: Option<u32>) -> Outcome {
    host.ask(Request::StoragePromote(request(machines, replicas, true)))
        .await
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_change_of_the_holders_is_refused_or_planned_and_a_dry_run_changes_nothing() {
    run(async {
        let cluster = Cluster::founded(3).await;
        let host = &cluster.hosts[0];
        for (machines, replicas) in [
            (&["m2"][..], None),
            (&["m2"], Some(3)),
            (&["m2", "m3"], Some(5)),
            (&["m2", "m3"], Some(2)),
            (&["m2", "m3"], Some(0)),
        ] {
            let words = "ployzctl machine storage promote --replicas N";
            refused(
                promote(host, machines, replicas).await,
                Code::InvalidReplicas,
                words,
            );
        }
        let demote = Request::StorageDemote(request(&["m1"], None, false));
        refused(
            host.ask(demote).await,
            Code::InvalidReplicas,
            "0 machines would hold the store",
        );
        let unknown = promote(host, &["m2", "m9"], None).await;
        refused(unknown, Code::MachineNotFound, "ployzctl machine ls");

        let planned = promote(host, &["m2", "m3", "m2"], Some(3)).await.unwrap();
        assert_eq!(planned.message, "dry run: nothing was changed");
        let StoragePromotion {
            operation_id,
            replicas,
            promoted,
            failed,
            plan,
            ..
        } = *payload!(Ok(planned), StoragePromotion);
        assert_eq!((operation_id, replicas, promoted.len()), (None, 3, 2));
        assert!(failed.is_empty() && plan.len() > 3, "{failed:?} {plan:?}");
        let same = host
            .ask(Request::StoragePromote(request(&["m1"], None, false)))
            .await;
        let same = same.unwrap();
        assert_eq!(same.message, "the store has these holders already");
        let list = payload!(host.ask(Request::StorageList).await, StorageList);
        assert_eq!((list.replicas, list.rows.len()), (1, 3));
        let holders = list
            .rows
            .iter()
            .filter(|row| row.role == Authority::Storage);
        let holders: Vec<_> = holders.map(|row| (row.id, row.leader)).collect();
        assert_eq!(holders, [(host.id(), true)]);
        // The lock was given back with each answer.
        assert!(host.machine.store_lock.take().is_some());
        let _changing = host.machine.store_lock.take().unwrap();
        let busy = promote(host, &["m2", "m3"], Some(3)).await;
        refused(busy, Code::Busy, "ployzctl operation list");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn the_store_is_given_to_no_machine_that_is_parked_or_away() {
    run(async {
        let mut cluster = Cluster::founded(3).await;
        let standby = Request::MachineStandby {
            machine: "m2".to_owned(),
            force: false,
        };
        cluster.hosts[0].ask(standby).await.unwrap();
        let network = cluster.hosts[0].machine.network().unwrap();
        wait_until("the change to be in view", PATIENCE, || {
            let view = network.view();
            view.select("m2").unwrap().lifecycle == ployz_api::Lifecycle::Standby
        })
        .await;
        let parked = promote(&cluster.hosts[0], &["m2", "m3"], None).await;
        refused(
            parked,
            Code::InvalidTransition,
            "ployzctl machine activate m2",
        );
        let activate = Request::MachineActivate {
            machine: "m2".to_owned(),
        };
        cluster.hosts[0].ask(activate).await.unwrap();
        wait_until("the change to be in view", PATIENCE, || {
            let view = network.view();
            view.select("m2").unwrap().lifecycle == ployz_api::Lifecycle::Active
        })
        .await;
        drop(network);
        let away = cluster.hosts.remove(2);
        away.kill().await;
        let change = Request::StoragePromote(request(&["m2", "m3"], None, false));
        let answer = cluster.hosts[0].ask(change).await.unwrap();
        assert!(
            answer.message.starts_with("nothing was changed"),
            "{answer:?}"
        );
        let planned = payload!(Ok(answer), StoragePromotion);
        assert_eq!((planned.operation_id, planned.failed.len()), (None, 1));
        assert_eq!(planned.failed[0].machine_id, away.id());
        assert_eq!(planned.failed[0].cause, Code::MachineUnreachable);
    });
}
