//! Long work, on real servers of the store.

use std::collections::BTreeMap;

use ployz_api::{Code, OperationId, OperationRow, Payload, Request, StorageRequest, WorkState};

use super::cluster::{Cluster, Host, OPERATION_WAIT};
use crate::testkit::{PATIENCE, run};

async fn operation(host: &Host, operation_id: OperationId) -> Option<OperationRow> {
    let get = Request::OperationGet { operation_id };
    match host.ask(get).await.ok()?.payload {
        Some(Payload::Operation(row)) => Some(*row),
        other => panic!("{other:?}"),
    }
}

/// Waits until an operation is over, as this machine sees it.
async fn over(host: &Host, operation_id: OperationId) -> OperationRow {
    let waiting = async {
        loop {
            match operation(host, operation_id).await {
                Some(row) if row.state != WorkState::Running => return row,
                Some(_) | None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(OPERATION_WAIT, waiting).await.unwrap()
}

fn storage(machines: &[&str], replicas: u32) -> StorageRequest {
    StorageRequest {
        machines: machines.iter().map(|it| (*it).to_owned()).collect(),
        replicas: Some(replicas),
        dry_run: false,
    }
}

async fn begin(host: &Host, request: Request) -> OperationId {
    match host.ask(request).await.unwrap().payload {
        Some(Payload::StoragePromotion(it)) => {
            assert!(it.failed.is_empty(), "{:?}", it.failed);
            it.operation_id.unwrap()
        }
        other => panic!("{other:?}"),
    }
}

async fn label(host: &Host, machine: &str, value: &str) -> Result<(), Code> {
    let labels = BTreeMap::from([("said".parse().unwrap(), Some(value.parse().unwrap()))]);
    let machine = machine.to_owned();
    let labelled = host.ask(Request::MachineLabel { machine, labels }).await;
    labelled.map(drop).map_err(|failure| failure.code)
}

/// How many machines have all of the store, once it is so many: the last writes are on their way to some for a moment.
async fn current(host: &Host, expected: usize) -> usize {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let Some(Payload::StorageList(list)) =
            host.ask(Request::StorageList).await.unwrap().payload
        else {
            panic!("a list of holders");
        };
        let count = list
            .rows
            .iter()
            .filter(|row| row.current == Some(true))
            .count();
        if count == expected || tokio::time::Instant::now() > deadline {
            return count;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn the_store_moves_to_three_machines_and_to_one_that_did_not_found_it() {
    run(async {
        let cluster = Cluster::founded(3).await;
        label(&cluster.hosts[0], "m2", "before").await.unwrap();
        let promote = Request::StoragePromote(storage(&["m2", "m3"], 3));
        let id = begin(&cluster.hosts[0], promote).await;
        let row = over(&cluster.hosts[0], id).await;
        assert_eq!(row.state, WorkState::Done, "{row:?}");
        assert_eq!(current(&cluster.hosts[1], 3).await, 3);
        for host in &cluster.hosts {
            label(host, "m1", "after").await.unwrap();
        }
        let demote = Request::StorageDemote(storage(&["m1", "m2"], 1));
        let id = begin(&cluster.hosts[2], demote).await;
        let row = over(&cluster.hosts[2], id).await;
        assert_eq!(row.state, WorkState::Done, "{row:?}");
        label(&cluster.hosts[2], "m1", "alone").await.unwrap();
        // What holders are trusted with has gone from those that are none any more.
        for former in &cluster.hosts[..2] {
            assert!(!former.machine.files.path("ca.json").exists());
            assert!(!former.machine.nats_server().is_running());
        }
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn two_changes_of_the_holders_are_not_begun_by_one_machine() {
    run(async {
        let cluster = Cluster::founded(3).await;
        let promote = || Request::StoragePromote(storage(&["m2", "m3"], 3));
        let id = begin(&cluster.hosts[0], promote()).await;
        let refused = cluster.hosts[0].ask(promote()).await.unwrap_err();
        assert_eq!(refused.code, Code::Busy);
        assert_eq!(over(&cluster.hosts[0], id).await.state, WorkState::Done);
    });
}

/// The daemon that coordinates a change dies in one of its stages. The one after it undoes the change or completes it,
/// and either way the store takes writes again and the operation has an end.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_coordinator_that_dies_leaves_one_store_that_takes_writes() {
    for stage in ["prepare", "elect", "copy", "cut over"] {
        run(async move {
            let mut cluster = Cluster::founded(3).await;
            let promote = Request::StoragePromote(storage(&["m2", "m3"], 3));
            let id = begin(&cluster.hosts[0], promote).await;
            let reached = |row: &OperationRow| row.stages.iter().any(|it| it.stage == stage);
            let waiting = async {
                // Once writes are refused the record is read from a store that is not changed any more.
                while !operation(&cluster.hosts[0], id)
                    .await
                    .is_some_and(|row| reached(&row))
                {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            };
            tokio::time::timeout(OPERATION_WAIT, waiting).await.unwrap();
            cluster.restart(0).await;
            let row = over(&cluster.hosts[0], id).await;
            assert!(
                matches!(row.state, WorkState::Done | WorkState::Failed),
                "{row:?}"
            );
            let writing = async {
                while label(&cluster.hosts[0], "m1", "after").await.is_err() {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(OPERATION_WAIT, writing).await.unwrap();
            let expected = if row.state == WorkState::Done { 3 } else { 1 };
            let count = current(&cluster.hosts[0], expected).await;
            assert_eq!(count, expected, "died in {stage}");
        });
    }
}
