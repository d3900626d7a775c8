use super::*;
use crate::machines::examples::id;
use crate::procedure::beginning;
use MigrationAnswer::{Done, State};
use MigrationStep as Step;

fn failure() -> Failure {
    Failure::new(Code::Conflict, "no")
}

fn step_of(migration: &MigrationProcedure) -> Step {
    match migration.next() {
        Next::Step(_, step) => step,
        other @ (Next::Wait(..) | Next::Done(_)) => panic!("{other:?}"),
    }
}

/// A migration whose new instance was claimed and is watched.
fn claimed(now: Instant) -> MigrationProcedure {
    let mut migration = MigrationProcedure::new(id(1));
    for expected in [Step::Announce, Step::Instruct, Step::Claim] {
        assert_eq!(step_of(&migration), expected);
        migration.handle(Ok(Done), now);
    }
    migration
}

/// Says a state at this time, and waits until the next look.
fn say(migration: &mut MigrationProcedure, state: WorkloadState, at: &mut Instant) {
    assert_eq!(step_of(migration), Step::Look);
    migration.handle(Ok(State(state)), *at);
    if let Next::Wait(_, until) = migration.next() {
        assert_eq!(until, *at + POLL);
        *at = until;
        migration.handle_timeout(until);
    }
}

#[test]
fn a_workload_is_cut_over_once_the_new_instance_has_run_for_a_while() {
    let mut now = beginning();
    let mut migration = claimed(now);
    for state in [
        WorkloadState::Unknown,
        WorkloadState::Copying,
        WorkloadState::Starting,
    ] {
        say(&mut migration, state, &mut now);
    }
    say(&mut migration, WorkloadState::Starting, &mut now);
    let since = now;
    while let Next::Step(_, Step::Look) = migration.next() {
        say(&mut migration, WorkloadState::Running, &mut now);
    }
    assert!(
        now >= since + STEADY && now <= since + STEADY + POLL * 2,
        "{:?}",
        now - since
    );
    assert_eq!(step_of(&migration), Step::CutOver);
    migration.handle(Ok(Done), now);
    assert_eq!(step_of(&migration), Step::Release);
    migration.handle(Ok(Done), now);
    assert_eq!(migration.next(), Next::Done(Ok(())));
}

#[test]
fn nothing_is_undone_of_a_migration_that_was_not_announced_and_everything_of_one_that_was() {
    let now = beginning();
    let mut migration = MigrationProcedure::new(id(1));
    migration.handle(Err(failure()), now);
    assert_eq!(migration.next(), Next::Done(Err(failure())));
    for done in [1, 2] {
        let mut migration = MigrationProcedure::new(id(1));
        for _ in 0..done {
            migration.handle(Ok(Done), now);
        }
        migration.handle(Err(failure()), now);
        assert_eq!(migration.next(), Next::Step(None, Step::Undo));
        migration.handle(Err(Failure::new(Code::Timeout, "nor that")), now);
        assert_eq!(migration.next(), Next::Done(Err(failure())));
    }
}

#[test]
fn an_instance_that_fails_or_stays_silent_is_undone_with_the_cause() {
    let begin = beginning();
    let mut migration = claimed(begin);
    say(&mut migration, WorkloadState::Waiting, &mut begin.clone());
    assert_eq!(step_of(&migration), Step::Undo);

    let (mut now, mut migration) = (begin, claimed(begin));
    while let Next::Step(_, Step::Look) = migration.next() {
        say(&mut migration, WorkloadState::Unknown, &mut now);
    }
    assert!(now - begin >= START_WAIT && now - begin <= START_WAIT + POLL);
    migration.handle(Ok(Done), now);
    let Next::Done(Err(silent)) = migration.next() else {
        panic!("it is over");
    };
    assert!(
        silent.code == Code::Timeout && silent.message.contains("not reported"),
        "{silent}"
    );
}

#[test]
fn an_instance_that_ends_before_it_was_steady_is_not_cut_over() {
    let mut now = beginning();
    let mut migration = claimed(now);
    say(&mut migration, WorkloadState::Running, &mut now);
    say(&mut migration, WorkloadState::Running, &mut now);
    say(&mut migration, WorkloadState::Waiting, &mut now);
    assert_eq!(step_of(&migration), Step::Undo);
}
