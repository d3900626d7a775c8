//! The watch, and what it passes over.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use ployz_api::{CredentialId, MachineId, Role};
use ployz_core::{Change, CredentialRecord, MachineRecord, ObservedRecord};
use serde_json::{Value, json};

use crate::host::clock;
use crate::host::identity::Identity;
use crate::store::{CREDENTIALS, Changes, LEASES, MACHINES, OBSERVED, Store};
use crate::testkit::{Ground, PATIENCE, key, record, run};

const CLOCK_SECS: u64 = 60;

fn machine(number: u16) -> MachineRecord {
    record(&Identity::generate().unwrap(), number)
}

async fn next(changes: &mut Changes) -> Change {
    let next = tokio::time::timeout(PATIENCE, changes.next());
    next.await
        .expect("there is news")
        .expect("the watch goes on")
}

async fn next_machine(changes: &mut Changes) -> MachineRecord {
    let Change::Machine(record, _) = next(changes).await else {
        panic!("this is no news of a machine");
    };
    *record
}

/// Records that are not what their keys say.
async fn put_unreadable(store: &Store) {
    let (one, another) = (machine(90), machine(91));
    let as_text = Value::String("no record".to_owned());
    let half = json!({ "version": 1, "id": one.id });
    for (bucket, key, value) in [
        (MACHINES, key(one.id), as_text.clone()),
        (MACHINES, key(one.id), half.clone()),
        (
            MACHINES,
            key(another.id),
            serde_json::to_value(&one).unwrap(),
        ),
        (
            MACHINES,
            "m90".to_owned(),
            serde_json::to_value(&one).unwrap(),
        ),
        (OBSERVED, key(one.id), half),
        (CREDENTIALS, key(one.id), as_text),
    ] {
        store.put(bucket, &key, &value).await.unwrap();
    }
    // A deletion of something that is no machine, and a bucket that nobody follows.
    store.delete(MACHINES, "m90", None).await.unwrap();
    store.put(LEASES, "name.a", &1).await.unwrap();
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn records_that_cannot_be_read_are_passed_over_in_listings_and_in_news() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let (first, second) = (machine(1), machine(2));
        put_unreadable(&store).await;
        store.put(MACHINES, &key(first.id), &first).await.unwrap();
        let (listing, mut changes) = store.follow().await.unwrap();
        let listed: Vec<_> = listing.into_iter().map(|(record, _)| record).collect();
        assert_eq!(listed, [first]);
        put_unreadable(&store).await;
        store.put(MACHINES, &key(second.id), &second).await.unwrap();
        assert_eq!(next_machine(&mut changes).await, second);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_damaged_record_does_not_take_the_machine_away() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let machine = machine(1);
        let key = key(machine.id);
        store.put(MACHINES, &key, &machine).await.unwrap();
        store.put(MACHINES, &key, &json!("damaged")).await.unwrap();
        // The store keeps former revisions, and the last one that can be read counts.
        let (listing, _changes) = store.follow().await.unwrap();
        assert_eq!(listing.len(), 1);
        assert_eq!(listing[0].0, machine);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_record_of_a_newer_version_is_read_with_all_that_it_says() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let (_, mut changes) = store.follow().await.unwrap();
        let machine = machine(1);
        let mut json = serde_json::to_value(&machine).unwrap();
        json["version"] = json!(machine.version + 1);
        json["later"] = json!("kept");
        store.put(MACHINES, &key(machine.id), &json).await.unwrap();
        let heard = next_machine(&mut changes).await;
        assert_eq!((heard.version, heard.id), (machine.version + 1, machine.id));
        assert_eq!(serde_json::to_value(&heard).unwrap(), json);
        let (listing, _) = store.follow().await.unwrap();
        assert_eq!(listing[0].0, heard);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_listing_has_the_last_revision_of_each_and_none_that_was_deleted() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let (mut kept, gone, mut back) = (machine(1), machine(2), machine(3));
        for record in [&kept, &gone, &back] {
            store.put(MACHINES, &key(record.id), record).await.unwrap();
        }
        for id in [gone.id, back.id] {
            assert!(store.delete(MACHINES, &key(id), None).await.unwrap());
        }
        for record in [&mut kept, &mut back] {
            record.region = "elsewhere".to_owned();
            store
                .put(MACHINES, &key(record.id), &*record)
                .await
                .unwrap();
        }
        let (listing, _changes) = store.follow().await.unwrap();
        let listed: BTreeMap<u64, MachineRecord> = listing
            .into_iter()
            .map(|(record, revision)| (revision, record))
            .collect();
        // Three records, two deletions, and these two.
        assert_eq!(listed, BTreeMap::from([(6, kept), (7, back)]));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_that_is_purged_is_gone_as_well() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let machine = machine(1);
        let key = key(machine.id);
        store.put(MACHINES, &key, &machine).await.unwrap();
        let (listing, mut changes) = store.follow().await.unwrap();
        let written = listing[0].1;
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "PURGE");
        let subject = format!("$KV.{MACHINES}.{key}");
        let purging = store
            .jetstream
            .publish_with_headers(subject, headers, "".into());
        purging.await.unwrap().await.unwrap();
        let Change::MachineGone(id, at) = next(&mut changes).await else {
            panic!("it is gone");
        };
        assert_eq!(id, machine.id);
        assert!(at > written);
        assert!(store.follow().await.unwrap().0.is_empty());
        assert!(
            store
                .list::<MachineRecord>(MACHINES)
                .await
                .unwrap()
                .is_empty()
        );
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn what_machines_observe_and_who_is_certified_follow_the_listing() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let id = MachineId::new(1, 1);
        let observed = |sessions: u32| -> ObservedRecord {
            let json = json!({
                "version": 1, "id": id, "software_version": "1.2.3", "backend": "epoll",
                "workloads": 0, "sessions": sessions,
            });
            serde_json::from_value(json).unwrap()
        };
        let credential_id = CredentialId::new(1, 1);
        let credential = CredentialRecord::new(credential_id, Role::Reader, None, 10, None);
        store.observe(&observed(1)).await.unwrap();
        let credential_key = credential_id.to_string();
        store
            .put(CREDENTIALS, &credential_key, &credential)
            .await
            .unwrap();
        let (_, mut changes) = store.follow().await.unwrap();
        let Change::Observed(heard, at) = next(&mut changes).await else {
            panic!("what was observed comes first");
        };
        assert_eq!(heard, observed(1));
        assert!(
            at.abs_diff(clock::now().unix_secs) < CLOCK_SECS,
            "by the store's clock"
        );
        let Change::Credential(heard) = next(&mut changes).await else {
            panic!("and credentials after it");
        };
        assert_eq!(heard, credential);
        let revoked = credential.revoke(20).unwrap();
        store
            .put(CREDENTIALS, &credential_key, &revoked)
            .await
            .unwrap();
        store.observe(&observed(2)).await.unwrap();
        let Change::Credential(heard) = next(&mut changes).await else {
            panic!("it was revoked");
        };
        assert_eq!(heard.revoked_at, Some(20));
        assert!(matches!(next(&mut changes).await, Change::Observed(it, _) if it == observed(2)));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_publication_that_is_not_the_stores_changes_nothing() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let (_, mut changes) = store.follow().await.unwrap();
        let (forged, genuine) = (machine(1), machine(2));
        let client = store.client().unwrap();
        let news = format!("ployz.changed.{MACHINES}.{}", forged.id);
        let payload = serde_json::to_vec(&forged).unwrap();
        client
            .publish(news.clone(), payload.clone().into())
            .await
            .unwrap();
        // The headers of an answer about another key.
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Stream", "KV_machines");
        headers.insert("Nats-Subject", format!("$KV.{MACHINES}.{}", genuine.id));
        headers.insert("Nats-Sequence", "1");
        headers.insert("Nats-Time-Stamp", "2026-01-01T00:00:00Z");
        let publishing = client.publish_with_headers(news, headers, payload.into());
        publishing.await.unwrap();
        client.flush().await.unwrap();
        store
            .put(MACHINES, &key(genuine.id), &genuine)
            .await
            .unwrap();
        assert_eq!(next_machine(&mut changes).await, genuine);
    });
}
