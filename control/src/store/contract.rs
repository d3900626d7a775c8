//! The contract that every supported `nats-server` has to keep: the oldest, the shipped and the newest. The files in
//! the folder are about what the store makes of it, with the server that is under test.

mod events;
mod operations;
mod records;
mod watch;

use std::collections::BTreeMap;

use ployz_api::MachineId;
use ployz_core::{Change, MachineRecord, ObservedRecord};

use crate::host::identity::Identity;
use crate::nats::{NatsError, Version};
use crate::store::*;
use crate::testkit::{Ground, PATIENCE, key, program, record, run};

const OLDEST: &str = "2.12.8";
const SHIPPED: &str = "2.14.6";
const NEWEST: &str = "2.15.1";
/// Debian 12's.
const TOO_OLD: &str = "2.9.10";

#[test]
#[ignore = "takes the servers of scripts/setup test"]
fn the_oldest_keeps_the_contract() {
    run(keeps_the_contract(OLDEST));
}

#[test]
#[ignore = "takes the servers of scripts/setup test"]
fn the_shipped_one_keeps_the_contract() {
    run(keeps_the_contract(SHIPPED));
}

#[test]
#[ignore = "takes the servers of scripts/setup test"]
fn the_newest_keeps_the_contract() {
    run(keeps_the_contract(NEWEST));
}

#[test]
#[ignore = "takes the servers of scripts/setup test"]
fn a_real_one_that_is_too_old_is_refused_by_name() {
    run(async {
        let error = Version::of(&program(TOO_OLD)).await.unwrap_err();
        assert!(matches!(error, NatsError::TooOld { .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.contains(TOO_OLD) && message.contains(OLDEST),
            "{message}"
        );
    });
}

async fn keeps_the_contract(version: &str) {
    let ground = Ground::new(&program(version)).await;
    let store = ground.store(&ground.holder).await;
    assert_eq!(store.client.server_info().version, version);
    store
        .make_buckets(1)
        .await
        .expect("once more changes nothing");
    compare_and_set(&store).await;
    follow(&store).await;
    Box::pin(permissions(&ground, &store)).await;
    survive_a_power_cut(&ground, &store).await;
}

/// Exactly one of two writers wins, and a key that was deleted can be made anew.
async fn compare_and_set(store: &Store) {
    let read = async || -> Revised<u32> { store.get(LEASES, "a").await.unwrap().unwrap() };
    assert!(store.get::<u32>(LEASES, "a").await.unwrap().is_none());
    assert!(store.create(LEASES, "a", &1).await.unwrap());
    assert!(!store.create(LEASES, "a", &2).await.unwrap());
    let first = read().await;
    assert_eq!(first.value, 1);
    let writers = (
        store.update(LEASES, "a", &3, first.revision),
        store.update(LEASES, "a", &4, first.revision),
    );
    let (one, other) = tokio::join!(writers.0, writers.1);
    assert!(one.unwrap() ^ other.unwrap(), "one of two");
    assert!(!store.update(LEASES, "a", &5, first.revision).await.unwrap());
    assert!(
        !store
            .delete(LEASES, "a", Some(first.revision))
            .await
            .unwrap()
    );
    let second = read().await;
    assert!(second.revision > first.revision && [3, 4].contains(&second.value));
    assert!(
        store
            .delete(LEASES, "a", Some(second.revision))
            .await
            .unwrap()
    );
    assert!(store.get::<u32>(LEASES, "a").await.unwrap().is_none());
    assert!(store.list::<u32>(LEASES).await.unwrap().is_empty());
    assert!(store.create(LEASES, "a", &6).await.unwrap());
    assert_eq!(store.list::<u32>(LEASES).await.unwrap(), [6]);
}

/// A listing is whole, and what comes after it is told in order.
async fn follow(store: &Store) {
    let (first, second) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let first = record(&first, 1);
    let id = key(first.id);
    assert!(store.create(MACHINES, &id, &first).await.unwrap());
    let (listing, mut changes) = store.follow().await.unwrap();
    assert_eq!(listing.len(), 1);
    let (listed, revision) = &listing[0];
    assert_eq!(*listed, first);
    let second = record(&second, 2);
    assert!(
        store
            .create(MACHINES, &key(second.id), &second)
            .await
            .unwrap()
    );
    assert!(store.delete(MACHINES, &id, Some(*revision)).await.unwrap());
    let mut next = async || {
        tokio::time::timeout(PATIENCE, changes.next())
            .await
            .unwrap()
    };
    let Some(Change::Machine(heard, made_at)) = next().await else {
        panic!("a new machine is news");
    };
    assert_eq!(*heard, second);
    let Some(Change::MachineGone(gone, gone_at)) = next().await else {
        panic!("a machine that has gone is news");
    };
    assert_eq!(gone, first.id);
    assert!(gone_at > made_at && made_at > *revision);
}

/// A machine may write its own observed record, and nothing else.
async fn permissions(ground: &Ground, holder: &Store) {
    let machine = Identity::generate().unwrap();
    ground.admit(std::slice::from_ref(&machine));
    let store = ground.store(&machine).await;
    let own = observed(machine.machine_id);
    store.observe(&own).await.unwrap();
    assert!(store.follow().await.is_ok(), "it may look");
    let others = observed(ground.holder.machine_id);
    let record = record(&machine, 3);
    let id = key(machine.machine_id);
    let (another, membership, invites) = tokio::join!(
        store.observe(&others),
        store.create(MACHINES, &id, &record),
        store.list::<serde_json::Value>(INVITES),
    );
    for refused in [another.is_err(), membership.is_err(), invites.is_err()] {
        assert!(refused);
    }
    assert!(
        holder
            .get::<MachineRecord>(MACHINES, &id)
            .await
            .unwrap()
            .is_none()
    );
    let heard: Vec<ObservedRecord> = holder.list(OBSERVED).await.unwrap();
    assert_eq!(heard, [own]);
}

fn observed(id: MachineId) -> ObservedRecord {
    ObservedRecord {
        version: ployz_core::RECORD_VERSION,
        id,
        software_version: String::new(),
        backend: String::new(),
        workloads: 0,
        instances: BTreeMap::new(),
        runtime: String::new(),
        sessions: 0,
        clock_unix_secs: None,
        management: Vec::new(),
        unknown: serde_json::Map::new(),
    }
}

/// Acknowledged writes survive the kill of the server, and the client reconnects by itself.
async fn survive_a_power_cut(ground: &Ground, store: &Store) {
    assert!(store.create(INVITES, "kept", &7).await.unwrap());
    ground.cut_power(store).await;
    ground.restore_power(store).await;
    let kept: Revised<u32> = store.get(INVITES, "kept").await.unwrap().unwrap();
    assert_eq!(kept.value, 7);
    // Buckets in memory have gone, and are created anew.
    assert!(store.follow().await.is_err());
    store.make_buckets(1).await.unwrap();
    assert!(store.follow().await.is_ok());
}
