//! The log of operations, as whoever reads the store sees it.

use ployz_api::{
    Code, Failure, LEASE_SECS, MachineId, MachineUpdate, Name, OperationId, WorkState,
};
use ployz_core::OperationRecord;

use crate::host::clock;
use crate::store::operations::{
    OperationLog, STORAGE_CHANGE, interrupt_former, unfinished_updates,
};
use crate::store::{OPERATIONS, Revised, Store};
use crate::testkit::{Ground, run};

const OWN: MachineId = MachineId::new(1, 1);
const OTHER: MachineId = MachineId::new(1, 2);
/// When the daemon was started, in milliseconds: what has an earlier id is its predecessor's.
const STARTED: u64 = 1_000_000;

fn begin(store: &Store) -> OperationLog {
    OperationLog::begin(OWN, store, "machine-join", "m2".to_owned(), "again")
}

async fn written(store: &Store, id: OperationId) -> Option<OperationRecord> {
    let found: Option<Revised<OperationRecord>> =
        store.get(OPERATIONS, &id.to_string()).await.unwrap();
    found.map(|found| found.value)
}

/// The stages of an operation in the store, each with its state.
async fn stages(store: &Store, id: OperationId) -> Vec<(String, WorkState)> {
    let record = written(store, id).await.expect("it is written");
    let stages = record.row().stages.iter();
    stages.map(|it| (it.stage.clone(), it.state)).collect()
}

fn states(expected: &[(&str, WorkState)]) -> Vec<(String, WorkState)> {
    let owned = |(stage, state): &(&str, WorkState)| ((*stage).to_owned(), *state);
    expected.iter().map(owned).collect()
}

fn update(id: OperationId) -> MachineUpdate {
    MachineUpdate {
        operation_id: id,
        version: "1.2.3".to_owned(),
        updated: Vec::new(),
        unchanged: vec![OTHER],
        failed: Vec::new(),
        untouched: vec![OWN],
        current: None,
        canary: None,
        rollback: false,
    }
}

/// An operation of the past, as it was written.
fn of_the_past(machine: MachineId, unix_ms: u64, operation: &str) -> OperationRecord {
    let (_, random) = clock::id_parts();
    let id = OperationId::new(unix_ms, random);
    let mut record = OperationRecord::begin(id, operation, String::new(), machine, "again", 10);
    record.stage("name", 11);
    record
}

async fn put(store: &Store, record: &OperationRecord) {
    let key = record.row().operation_id.to_string();
    store.put(OPERATIONS, &key, record).await.unwrap();
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn every_stage_is_in_the_store_when_it_begins() {
    use WorkState::{Done, Running};
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let mut log = begin(&store);
        let id = log.id();
        assert!(written(&store, id).await.is_none(), "it has no stage yet");
        log.stage("name").await;
        assert_eq!(stages(&store, id).await, states(&[("name", Running)]));
        log.stage("record").await;
        let two = states(&[("name", Done), ("record", Running)]);
        assert_eq!(stages(&store, id).await, two);
        assert_eq!(written(&store, id).await.as_ref(), Some(log.record()));
        log.end(None).await;
        let record = written(&store, id).await.unwrap();
        let row = record.row();
        assert_eq!((row.state, row.code), (Done, Some(Code::Ok)));
        assert!(row.ended_at.is_some() && row.stages.iter().all(|it| it.state == Done));
        assert_eq!(
            store.list::<OperationRecord>(OPERATIONS).await.unwrap(),
            [record]
        );
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_failure_says_in_which_stage_and_what_to_do_next() {
    use WorkState::{Done, Failed};
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let mut log = begin(&store);
        let id = log.id();
        log.stage("name").await;
        log.stage("record").await;
        let failure = Failure::new(Code::Conflict, "no subnet left");
        log.end(Some(&failure)).await;
        let expected = states(&[("name", Done), ("record", Failed)]);
        assert_eq!(stages(&store, id).await, expected);
        let record = written(&store, id).await.unwrap();
        let row = record.row();
        assert_eq!((row.state, row.code), (Failed, Some(Code::Conflict)));
        assert_eq!((&*row.message, &*row.next), ("no subnet left", "again"));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn machines_have_stages_of_their_own_and_progress_is_written_with_the_next() {
    use WorkState::{Done, Running};
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let (a, b) = (Name::nearest("a"), Name::nearest("b"));
        let mut log = begin(&store);
        let id = log.id();
        log.stage_of(&a, "fetch").await;
        log.stage_of(&b, "fetch").await;
        log.set_update(&update(id));
        assert!(written(&store, id).await.unwrap().row().update.is_none());
        log.end_of(&a);
        log.stage_of(&b, "switch").await;
        let record = written(&store, id).await.unwrap();
        let row = record.row();
        assert_eq!(row.update.as_deref(), Some(&update(id)));
        let said: Vec<_> = row
            .stages
            .iter()
            .map(|it| (it.target.as_deref().unwrap(), &*it.stage, it.state))
            .collect();
        let expected = [
            ("a", "fetch", Done),
            ("b", "fetch", Done),
            ("b", "switch", Running),
        ];
        assert_eq!(said, expected);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn the_next_daemon_continues_an_operation_under_its_id() {
    use WorkState::{Done, Running};
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let mut former = begin(&store);
        let id = former.id();
        former.stage("name").await;
        drop(former);
        let found = written(&store, id).await.unwrap();
        let mut log = OperationLog::resume(&store, found);
        assert_eq!(log.id(), id);
        log.stage("record").await;
        let both = states(&[("name", Done), ("record", Running)]);
        assert_eq!(stages(&store, id).await, both);
        log.end(None).await;
        let ended = written(&store, id).await.unwrap();
        // What is over stays as it is, whoever takes it up.
        let mut late = OperationLog::resume(&store, ended.clone());
        late.stage("name").await;
        late.end(Some(&Failure::new(Code::Internal, "late"))).await;
        assert_eq!(written(&store, id).await, Some(ended));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn after_a_move_stages_are_written_to_the_other_store_alone() {
    use WorkState::{Done, Running};
    run(async {
        let (former, next) = (Ground::under_test().await, Ground::under_test().await);
        let store = former.store(&former.holder).await;
        let other = next.store(&next.holder).await;
        let mut log = begin(&store);
        let id = log.id();
        log.stage("name").await;
        log.move_to(&other);
        assert!(written(&other, id).await.is_none(), "a move writes nothing");
        log.stage("record").await;
        assert_eq!(stages(&store, id).await, states(&[("name", Running)]));
        let both = states(&[("name", Done), ("record", Running)]);
        assert_eq!(stages(&other, id).await, both);
        // Back again, for a change that is undone.
        log.move_to(&store);
        log.end(None).await;
        let both = states(&[("name", Done), ("record", Done)]);
        assert_eq!(stages(&store, id).await, both);
        assert_eq!(written(&other, id).await.unwrap().row().ended_at, None);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn what_is_closed_in_another_store_is_written_nowhere_any_more() {
    use WorkState::{Done, Running};
    run(async {
        let (former, next) = (Ground::under_test().await, Ground::under_test().await);
        let store = former.store(&former.holder).await;
        let other = next.store(&next.holder).await;
        let mut log = begin(&store);
        let id = log.id();
        log.stage("name").await;
        log.close_in(&other).await;
        let closed = written(&other, id).await.unwrap();
        assert_eq!(closed.row().state, Done);
        let revision = async || -> u64 {
            let found: Option<Revised<OperationRecord>> =
                other.get(OPERATIONS, &id.to_string()).await.unwrap();
            found.unwrap().revision
        };
        let before = revision().await;
        log.stage("record").await;
        log.end(Some(&Failure::new(Code::Internal, "late"))).await;
        assert_eq!(revision().await, before, "not even the same once more");
        assert_eq!(stages(&store, id).await, states(&[("name", Running)]));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn only_updates_that_this_machine_has_not_ended_are_resumed() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        assert_eq!(unfinished_updates(&store, OWN).await.unwrap(), []);
        let with_update = |machine| {
            let mut record = of_the_past(machine, STARTED - 1, "machine-update");
            record.set_update(update(record.row().operation_id));
            record
        };
        let mine = with_update(OWN);
        let mut over = with_update(OWN);
        over.end(None, 20);
        let without = of_the_past(OWN, STARTED - 1, "machine-join");
        for record in [&mine, &over, &with_update(OTHER), &without] {
            put(&store, record).await;
        }
        assert_eq!(unfinished_updates(&store, OWN).await.unwrap(), [mine]);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn operations_of_the_former_daemon_are_interrupted_and_no_others() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let former = |operation| of_the_past(OWN, STARTED - 1, operation);
        let (first, second) = (former("machine-join"), former("machine-rm"));
        let mut of_a_client = former("machine-add");
        of_a_client.renew(u64::MAX - LEASE_SECS);
        let mut updating = former("machine-update");
        updating.set_update(update(updating.row().operation_id));
        let mut over = former("machine-join");
        over.end(None, 20);
        let kept = [
            of_a_client,
            updating,
            over,
            former(STORAGE_CHANGE),
            of_the_past(OTHER, STARTED - 1, "machine-join"),
            of_the_past(OWN, STARTED, "machine-join"),
            of_the_past(OWN, STARTED + 1, "machine-join"),
        ];
        for record in [&first, &second].into_iter().chain(&kept) {
            put(&store, record).await;
        }
        // Once more interrupts nobody twice.
        for _ in 0..2 {
            interrupt_former(&store, OWN, STARTED).await.unwrap();
            for record in &kept {
                let found = written(&store, record.row().operation_id).await;
                assert_eq!(found.as_ref(), Some(record));
            }
            for record in [&first, &second] {
                let found = written(&store, record.row().operation_id).await.unwrap();
                let row = found.row();
                assert_eq!(row.state, WorkState::Interrupted);
                assert_eq!(row.stages[0].state, WorkState::Interrupted);
                assert!(row.ended_at.is_some());
            }
        }
        let key = first.row().operation_id.to_string();
        let Revised { revision, .. }: Revised<OperationRecord> =
            store.get(OPERATIONS, &key).await.unwrap().unwrap();
        interrupt_former(&store, OWN, STARTED).await.unwrap();
        let again: Revised<OperationRecord> = store.get(OPERATIONS, &key).await.unwrap().unwrap();
        assert_eq!(again.revision, revision);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_stage_that_cannot_be_written_does_not_end_the_operation() {
    use WorkState::Done;
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let mut log = begin(&store);
        let id = log.id();
        log.stage("name").await;
        ground.cut_power(&store).await;
        log.stage("addresses").await;
        assert!(log.announce().await.is_err(), "and whoever needs it, hears");
        ground.restore_power(&store).await;
        log.stage("record").await;
        log.end(None).await;
        // The one that was not written in its time is there as well.
        let all = states(&[("name", Done), ("addresses", Done), ("record", Done)]);
        assert_eq!(stages(&store, id).await, all);
    });
}
