//! Changes of a machine's record by several writers at a time.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::mpsc;

use futures_util::future::join_all;
use ployz_api::{MachineId, Secret};
use ployz_core::MachineRecord;
use serde_json::{Value, json};

use crate::host::identity::Identity;
use crate::store::records::change;
use crate::store::{MACHINES, Revised, Store, StoreError};
use crate::testkit::{Ground, PATIENCE, key, record, run};

/// Each loses to every other at most.
const WRITERS: usize = 16;
/// What `change` tries.
const ATTEMPTS: usize = 64;

/// A store with the record of one machine.
async fn founded() -> (Ground, Store, MachineRecord) {
    let ground = Ground::under_test().await;
    let store = ground.store(&ground.holder).await;
    let record = record(&ground.holder, 1);
    let made = store.create(MACHINES, &key(record.id), &record).await;
    assert!(made.unwrap());
    (ground, store, record)
}

async fn read(store: &Store, id: MachineId) -> Revised<MachineRecord> {
    store.get(MACHINES, &key(id)).await.unwrap().unwrap()
}

fn label(record: &mut MachineRecord, name: &str) -> Result<(), StoreError> {
    record.labels.insert(name.to_owned(), "said".to_owned());
    Ok(())
}

/// A writer on a thread of its own, who adds a label and says when that is done: it is faster than any other, as the
/// others are held up meanwhile.
struct Rival {
    ask: mpsc::Sender<String>,
    done: mpsc::Receiver<()>,
}

impl Rival {
    fn of(ground: &Ground, id: MachineId) -> Self {
        let membership = ground.membership(&ground.holder);
        let copy = |secret: &Secret| Secret::new(secret.expose().to_owned());
        let identity = Identity {
            machine_id: ground.holder.machine_id,
            nkey_seed: copy(&ground.holder.nkey_seed),
            certificate_key_pem: copy(&ground.holder.certificate_key_pem),
            ..Identity::generate().unwrap()
        };
        let ((ask, asked), (say, done)) = (mpsc::channel::<String>(), mpsc::channel());
        std::thread::spawn(move || {
            run(async {
                let store = Store::open(&membership, &identity).await.unwrap();
                store.wait_connected(PATIENCE).await.unwrap();
                while let Ok(name) = asked.recv() {
                    change(&store, id, |record| label(record, &name))
                        .await
                        .unwrap();
                    say.send(()).unwrap();
                }
            });
        });
        Self { ask, done }
    }

    fn write(&self, name: String) {
        self.ask.send(name).unwrap();
        self.done.recv_timeout(PATIENCE).expect("the rival writes");
    }
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn every_one_of_many_writers_gets_its_change_in() {
    run(async {
        let (_ground, store, before) = founded().await;
        let names: Vec<String> = (0..WRITERS).map(|number| format!("w{number}")).collect();
        let writers = names
            .iter()
            .map(|name| change(&store, before.id, move |record| label(record, name)));
        for (changed, name) in join_all(writers).await.into_iter().zip(&names) {
            let changed = changed.unwrap();
            assert!(!changed.before.labels.contains_key(name));
            let mut expected = changed.before;
            label(&mut expected, name).unwrap();
            assert_eq!(
                changed.after, expected,
                "each changes what it says and no more"
            );
        }
        let after = read(&store, before.id).await;
        let written: BTreeSet<String> = after.value.labels.into_keys().collect();
        assert_eq!(written, names.into_iter().collect());
        assert_eq!(after.revision, 1 + u64::try_from(WRITERS).unwrap());
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn who_was_too_slow_edits_what_the_faster_one_has_written() {
    run(async {
        let (ground, store, before) = founded().await;
        let rival = Rival::of(&ground, before.id);
        let calls = Cell::new(0);
        let changed = change(&store, before.id, |record| {
            calls.set(calls.get() + 1);
            if calls.get() == 1 {
                rival.write("rival".to_owned());
            }
            label(record, "own")
        });
        let changed = changed.await.unwrap();
        assert_eq!(calls.get(), 2);
        assert!(changed.before.labels.contains_key("rival"));
        assert_eq!(read(&store, before.id).await.value, changed.after);
        assert_eq!(changed.after.labels.len(), 2);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn who_is_too_slow_every_time_gives_up_and_writes_nothing() {
    run(async {
        let (ground, store, before) = founded().await;
        let rival = Rival::of(&ground, before.id);
        let calls = Cell::new(0);
        let outcome = change(&store, before.id, |record| {
            calls.set(calls.get() + 1);
            rival.write(format!("r{}", calls.get()));
            label(record, "own")
        });
        let error = outcome.await.unwrap_err();
        assert!(
            matches!(error, StoreError::Contended(id) if id == before.id),
            "{error}"
        );
        assert_eq!(calls.get(), ATTEMPTS);
        let after = read(&store, before.id).await.value;
        assert_eq!(after.labels.len(), ATTEMPTS);
        assert!(!after.labels.contains_key("own"));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_change_that_refuses_or_changes_nothing_writes_nothing() {
    run(async {
        let (_ground, store, before) = founded().await;
        let written = read(&store, before.id).await.revision;
        let refused = change(&store, before.id, |record| {
            label(record, "half")?;
            Err(StoreError::Unavailable("not like this".to_owned()))
        });
        let error = refused.await.unwrap_err();
        assert!(error.to_string().ends_with("not like this"), "{error}");
        let same = change::<StoreError>(&store, before.id, |_| Ok(()));
        let same = same.await.unwrap();
        assert_eq!((&same.before, &same.after), (&before, &before));
        let after = read(&store, before.id).await;
        assert_eq!((after.revision, after.value), (written, before));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_that_was_removed_cannot_be_changed_back_into_being() {
    run(async {
        let (ground, store, before) = founded().await;
        let rival_store = ground.store(&ground.holder).await;
        let removed = rival_store.delete(MACHINES, &key(before.id), None).await;
        assert!(removed.unwrap());
        for id in [before.id, MachineId::new(1, 1)] {
            let error = change(&store, id, |record| label(record, "own")).await;
            let error = error.unwrap_err();
            assert!(
                matches!(error, StoreError::MachineRemoved(gone) if gone == id),
                "{error}"
            );
            let found: Option<Revised<MachineRecord>> =
                store.get(MACHINES, &key(id)).await.unwrap();
            assert!(found.is_none());
        }
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_change_keeps_what_a_newer_version_has_written() {
    run(async {
        let (_ground, store, before) = founded().await;
        let mut json = serde_json::to_value(&before).unwrap();
        json["later"] = json!({ "a": [1, 2] });
        json["version"] = json!(before.version + 1);
        store.put(MACHINES, &key(before.id), &json).await.unwrap();
        let changed = change(&store, before.id, |record| label(record, "own"));
        changed.await.unwrap();
        let after: Revised<Value> = store.get(MACHINES, &key(before.id)).await.unwrap().unwrap();
        json["labels"] = json!({ "own": "said" });
        assert_eq!(after.value, json);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_damaged_record_is_named_and_left_as_it_is() {
    run(async {
        let (_ground, store, before) = founded().await;
        let key = key(before.id);
        store
            .put(MACHINES, &key, &json!({ "id": before.id }))
            .await
            .unwrap();
        let error = change(&store, before.id, |record| label(record, "own")).await;
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(&key), "{error}");
        let after: Revised<Value> = store.get(MACHINES, &key).await.unwrap().unwrap();
        assert_eq!(after.value, json!({ "id": before.id }));
    });
}
