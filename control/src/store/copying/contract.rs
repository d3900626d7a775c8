//! The copy of a store, message by message.

use ployz_api::{Code, Event, MachineId, Operation, Role};
use ployz_core::Change;

use super::*;
use crate::host::identity::Identity;
use crate::store::{INVITES, LEASES, MACHINES, OPERATIONS, Revised, Slot};
use crate::testkit::{Ground, key, program_under_test, record, run};

/// As large as a record may be, so that one stream takes more than one chunk.
const LARGE_LEN: usize = 100 * 1024;

/// A store with records, deletions, history and events.
async fn filled() -> (Ground, Store) {
    let ground = Ground::under_test().await;
    let store = ground.store(&ground.holder).await;
    for value in 1..=3 {
        store.put(LEASES, "a", &value).await.unwrap();
    }
    store.put(LEASES, "gone", &1).await.unwrap();
    assert!(store.delete(LEASES, "gone", None).await.unwrap());
    for number in 0..4 {
        let large = "x".repeat(LARGE_LEN);
        store
            .put(INVITES, &format!("large{number}"), &large)
            .await
            .unwrap();
    }
    let machine = record(&ground.holder, 1);
    store
        .put(MACHINES, &key(machine.id), &machine)
        .await
        .unwrap();
    let event = Event {
        at: 1,
        machine: MachineId::new(1, 1),
        subject: "root".to_owned(),
        role: Role::Admin,
        operation: Operation::MachineRemove,
        target: "m2".to_owned(),
        code: Code::Ok,
        message: String::new(),
    };
    store.publish_event(&event).await.unwrap();
    (ground, store)
}

/// What [`filled`] has written: three leases and two of the one that is gone, large ones, a machine, an event.
const FILLED: usize = 3 + 2 + 4 + 1 + 1;

/// A store that was just started.
async fn empty() -> (Ground, Store) {
    let ground = Ground::bare(&program_under_test()).await;
    let store = ground.store(&ground.holder).await;
    (ground, store)
}

async fn copied() -> ((Ground, Store), (Ground, Store)) {
    let (from, into) = (filled().await, empty().await);
    from.1.freeze().await.unwrap();
    from.1.begin_copy(1).await.unwrap();
    into.1.begin_copy(1).await.unwrap();
    from.1.copy_to(&into.1, 1).await.unwrap();
    (from, into)
}

async fn read(store: &Store, key: &str) -> Option<Revised<u32>> {
    store.get(LEASES, key).await.unwrap()
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_frozen_store_refuses_writes_and_answers_until_it_is_thawed() {
    run(async {
        let (_ground, store) = filled().await;
        let machine = record(&Identity::generate().unwrap(), 2);
        // Repeating it is harmless.
        store.freeze().await.unwrap();
        store.freeze().await.unwrap();
        assert_eq!(read(&store, "a").await.unwrap().value, 3);
        let key = key(machine.id);
        let (put, made, deleted) = tokio::join!(
            store.put(LEASES, "a", &4),
            store.create(MACHINES, &key, &machine),
            store.delete(LEASES, "a", None),
        );
        assert!(put.is_err() && made.is_err() && deleted.is_err());
        assert_eq!(read(&store, "a").await.unwrap().value, 3);
        // What is kept in memory does not move, and goes on.
        let (listing, mut changes) = store.follow().await.unwrap();
        assert_eq!(listing.len(), 1);
        store.thaw().await.unwrap();
        store.thaw().await.unwrap();
        store.put(LEASES, "a", &4).await.unwrap();
        assert_eq!(read(&store, "a").await.unwrap().value, 4);
        // Followers hear of changes again.
        assert!(store.create(MACHINES, &key, &machine).await.unwrap());
        let heard = timeout(PATIENCE, changes.next()).await.unwrap();
        assert!(matches!(heard, Some(Change::Machine(it, _)) if *it == machine));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn thawing_what_was_never_frozen_changes_nothing() {
    run(async {
        let (_ground, store) = filled().await;
        let configs = async || -> Vec<Config> {
            let infos = store.stream_infos().await.unwrap();
            infos.into_iter().map(|info| info.config).collect()
        };
        let before = configs().await;
        store.thaw().await.unwrap();
        assert_eq!(configs().await, before);
        store.freeze().await.unwrap();
        assert_ne!(configs().await, before);
        store.thaw().await.unwrap();
        assert_eq!(configs().await, before);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_copy_has_the_numbers_times_history_and_deletions_of_the_original() {
    run(async {
        let ((_from, store), (_into, next)) = copied().await;
        assert_eq!(store.compare(&next).await.unwrap(), FILLED);
        let (ours, theirs) = (
            read(&store, "a").await.unwrap(),
            read(&next, "a").await.unwrap(),
        );
        assert_eq!((theirs.value, theirs.revision), (3, ours.revision));
        let slot = async |store: &Store| -> Slot<u32> { store.slot(LEASES, "gone").await.unwrap() };
        let Slot::Deleted { revision, at } = slot(&store).await else {
            panic!("it was deleted");
        };
        let there = slot(&next).await;
        assert!(
            matches!(there, Slot::Deleted { revision: r, at: t } if (r, t) == (revision, at)),
            "{there:?}"
        );
        let large: Revised<String> = next.get(INVITES, "large3").await.unwrap().unwrap();
        assert_eq!(large.value.len(), LARGE_LEN);
        assert_eq!(
            next.follow().await.unwrap().0,
            store.follow().await.unwrap().0
        );
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_copy_accepts_writes_although_the_original_is_frozen() {
    run(async {
        let ((_from, store), (_into, next)) = copied().await;
        let found = read(&next, "a").await.unwrap();
        // Whoever has read the original may write the copy.
        let read_before = read(&store, "a").await.unwrap().revision;
        assert!(next.update(LEASES, "a", &5, read_before).await.unwrap());
        assert!(!next.update(LEASES, "a", &6, found.revision).await.unwrap());
        let after = read(&next, "a").await.unwrap();
        assert_eq!(after.value, 5);
        assert!(after.revision > found.revision);
        let (_, mut changes) = next.follow().await.unwrap();
        let machine = record(&Identity::generate().unwrap(), 2);
        assert!(
            next.create(MACHINES, &key(machine.id), &machine)
                .await
                .unwrap()
        );
        let heard = timeout(PATIENCE, changes.next()).await.unwrap();
        assert!(matches!(heard, Some(Change::Machine(it, _)) if *it == machine));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_difference_is_found_and_named() {
    run(async {
        let ((_from, store), (_into, next)) = copied().await;
        assert_eq!(store.compare_once(&next).await.unwrap(), FILLED);
        next.put(OPERATIONS, "one-more", &1).await.unwrap();
        for (one, other) in [(&store, &next), (&next, &store)] {
            let error = one.compare_once(other).await.unwrap_err();
            let is_named = matches!(&error, StoreError::CopyDiffers(it) if it == "KV_operations");
            assert!(is_named, "{error}");
        }
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn the_same_value_at_another_time_is_a_difference() {
    run(async {
        let ((_from, store), (_into, next)) = (filled().await, filled().await);
        let error = store.compare_once(&next).await.unwrap_err();
        assert!(matches!(error, StoreError::CopyDiffers(_)), "{error}");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_store_that_has_the_streams_already_is_not_copied_over() {
    run(async {
        let ((_from, store), (_into, next)) = copied().await;
        next.put(LEASES, "mine", &1).await.unwrap();
        assert!(store.copy_to(&next, 1).await.is_err());
        assert_eq!(read(&next, "mine").await.unwrap().value, 1);
    });
}
