use std::collections::BTreeSet;

use ployz_api::OperationId;

use super::*;
use crate::machines::examples::id;
use crate::procedure::beginning;
use UpdateAnswer::Done;
use UpdateTask as Task;

const OLD: &str = "1.0.0";
const NEW: &str = "1.1.0";

fn update(machines: &[u8], canary: Option<u32>, rollback: bool) -> UpdateProcedure {
    let state = MachineUpdate {
        operation_id: OperationId::new(1, 1),
        version: NEW.to_owned(),
        updated: Vec::new(),
        unchanged: Vec::new(),
        failed: Vec::new(),
        untouched: machines.iter().map(|it| id(*it)).collect(),
        current: None,
        canary,
        rollback,
    };
    resume(state, machines)
}

fn resume(state: MachineUpdate, machines: &[u8]) -> UpdateProcedure {
    let name = |number: &u8| (id(*number), Name::nearest(&format!("m{number}")));
    UpdateProcedure::new(state, id(9), machines.iter().map(name).collect())
}

fn health(version: &str, switch: Switch) -> Result<UpdateAnswer, Failure> {
    Ok(UpdateAnswer::Health(Box::new(MachineHealth {
        version: version.to_owned(),
        sessions: BTreeSet::new(),
        store: true,
        switch,
        ..MachineHealth::default()
    })))
}

fn failed(message: &str) -> Result<UpdateAnswer, Failure> {
    Err(Failure::new(Code::MachineUnreachable, message))
}

/// The step that is next has to be this one; this comes of it.
fn expect(
    update: &mut UpdateProcedure,
    expected: &Task,
    outcome: Result<UpdateAnswer, Failure>,
    now: Instant,
) {
    let Next::Step(_, task) = update.next() else {
        panic!("{expected:?} is next, and not {:?}", update.next());
    };
    assert_eq!(task, *expected);
    update.handle(outcome, now);
}

/// A machine gets the version, up to its switch.
fn switched(update: &mut UpdateProcedure, machine: u8, now: Instant) {
    let machine = id(machine);
    expect(
        update,
        &Task::Fetch(machine, ReleaseSource::Base),
        Ok(Done),
        now,
    );
    expect(
        update,
        &Task::Health(machine),
        health(OLD, Switch::None),
        now,
    );
    expect(update, &Task::Switch(machine), Ok(Done), now);
}

fn updated(update: &mut UpdateProcedure, machine: u8, now: Instant) {
    switched(update, machine, now);
    expect(
        update,
        &Task::Health(id(machine)),
        health(NEW, Switch::Watched),
        now,
    );
    expect(update, &Task::Confirm(id(machine)), Ok(Done), now);
}

fn wait(update: &mut UpdateProcedure) -> Instant {
    let Next::Wait(_, until) = update.next() else {
        panic!("a wait is next, and not {:?}", update.next());
    };
    update.handle_timeout(until);
    until
}

#[test]
fn machines_are_updated_one_after_the_other() {
    let now = beginning();
    let mut update = update(&[1, 2], None, true);
    updated(&mut update, 1, now);
    updated(&mut update, 2, now);
    assert_eq!(update.next(), Next::Done(Ok(())));
    let state = update.state();
    let ids: Vec<MachineId> = state.updated.iter().map(|it| it.id).collect();
    assert_eq!(
        (ids, state.untouched.len(), &state.current),
        (vec![id(1), id(2)], 0, &None)
    );
}

#[test]
fn one_that_has_the_version_and_one_that_has_left_are_left_alone() {
    let now = beginning();
    let mut update = update(&[1, 2], None, true);
    expect(
        &mut update,
        &Task::Fetch(id(1), ReleaseSource::Base),
        Ok(Done),
        now,
    );
    expect(
        &mut update,
        &Task::Health(id(1)),
        health(NEW, Switch::None),
        now,
    );
    let gone = Err(Failure::new(Code::MachineNotFound, "it was removed"));
    expect(
        &mut update,
        &Task::Fetch(id(2), ReleaseSource::Base),
        gone,
        now,
    );
    assert_eq!(update.next(), Next::Done(Ok(())));
    assert_eq!(update.state().unchanged, [id(1)]);
    assert!(update.state().updated.is_empty() && update.state().untouched.is_empty());
}

#[test]
fn one_that_cannot_reach_the_releases_is_sent_the_version() {
    let now = beginning();
    let cannot = || {
        Ok(UpdateAnswer::Fetched(ReleaseFetched {
            arch: "x86_64".to_owned(),
            unreachable: Some("no route".to_owned()),
        }))
    };
    let mut one = update(&[1], None, true);
    expect(
        &mut one,
        &Task::Fetch(id(1), ReleaseSource::Base),
        cannot(),
        now,
    );
    expect(
        &mut one,
        &Task::Mirror(id(1), "x86_64".to_owned()),
        Ok(Done),
        now,
    );
    expect(
        &mut one,
        &Task::Fetch(id(1), ReleaseSource::Coordinator),
        Ok(Done),
        now,
    );
    expect(
        &mut one,
        &Task::Health(id(1)),
        health(OLD, Switch::None),
        now,
    );
    assert_eq!(
        one.state().current.as_ref().unwrap().release_from,
        ReleaseSource::Coordinator
    );

    let mut other = update(&[1], None, true);
    expect(
        &mut other,
        &Task::Fetch(id(1), ReleaseSource::Base),
        cannot(),
        now,
    );
    expect(
        &mut other,
        &Task::Mirror(id(1), "x86_64".to_owned()),
        failed("too slow"),
        now,
    );
    let message = &other.state().failed[0].message;
    assert!(
        message.contains("no route") && message.contains("too slow"),
        "{message}"
    );

    // The coordinator itself has nowhere else to have it from.
    let mut own = update(&[9], None, true);
    expect(
        &mut own,
        &Task::Fetch(id(9), ReleaseSource::Base),
        cannot(),
        now,
    );
    assert!(matches!(own.next(), Next::Done(Err(_))));
}

#[test]
fn the_first_that_fails_ends_the_update_and_says_at_which_stage() {
    let now = beginning();
    for (done, stage) in [(0, "download"), (1, "download"), (2, "switch")] {
        let mut update = update(&[1, 2], None, true);
        let outcomes = [Ok(Done), health(OLD, Switch::None)];
        for outcome in outcomes.into_iter().take(done) {
            update.handle(outcome, now);
        }
        update.handle(failed("away"), now);
        assert!(matches!(update.next(), Next::Done(Err(_))), "{done}");
        let state = update.state();
        assert_eq!(
            (state.failed[0].stage.as_str(), state.failed[0].rolled_back),
            (stage, true)
        );
        assert_eq!(state.untouched, [id(2)], "nothing is done to the others");
    }
}

#[test]
fn one_that_is_not_healthy_in_time_goes_back_or_stays_as_the_operator_said() {
    let begin = beginning();
    for rollback in [true, false] {
        let mut update = update(&[1], None, rollback);
        switched(&mut update, 1, begin);
        let mut now = begin;
        while now <= begin + HEALTH_WAIT {
            expect(&mut update, &Task::Health(id(1)), failed("silence"), now);
            match update.next() {
                Next::Wait(..) => now = wait(&mut update),
                Next::Step(..) | Next::Done(_) => break,
            }
        }
        assert!(now >= begin + HEALTH_WAIT, "{:?}", now - begin);
        if rollback {
            expect(&mut update, &Task::Revert(id(1)), failed("silence"), now);
            expect(
                &mut update,
                &Task::Health(id(1)),
                health(NEW, Switch::Watched),
                now,
            );
            now = wait(&mut update);
            expect(&mut update, &Task::Revert(id(1)), Ok(Done), now);
            expect(
                &mut update,
                &Task::Health(id(1)),
                health(OLD, Switch::Reverted),
                now,
            );
        }
        let failed = &update.state().failed[0];
        assert_eq!(
            (failed.stage.as_str(), failed.rolled_back),
            ("health", rollback)
        );
        assert!(failed.message.contains("silence"), "{}", failed.message);
    }
}

#[test]
fn one_that_has_gone_back_by_itself_is_not_asked_to() {
    let now = beginning();
    let mut update = update(&[1], None, true);
    switched(&mut update, 1, now);
    expect(
        &mut update,
        &Task::Health(id(1)),
        health(OLD, Switch::Reverted),
        now,
    );
    assert!(matches!(update.next(), Next::Done(Err(_))));
    assert!(update.state().failed[0].rolled_back);
}

#[test]
fn canaries_are_watched_before_the_others_follow() {
    let now = beginning();
    let mut update = update(&[1, 2], Some(1), true);
    updated(&mut update, 1, now);
    let later = wait(&mut update);
    assert_eq!(later, now + CANARY_WAIT);
    expect(
        &mut update,
        &Task::Health(id(1)),
        health(NEW, Switch::Confirmed),
        later,
    );
    updated(&mut update, 2, later);
    assert_eq!(update.next(), Next::Done(Ok(())));
}

#[test]
fn a_canary_that_falls_ill_ends_the_update() {
    let now = beginning();
    let mut update = update(&[1, 2], Some(1), true);
    updated(&mut update, 1, now);
    let later = wait(&mut update);
    expect(
        &mut update,
        &Task::Health(id(1)),
        health(OLD, Switch::None),
        later,
    );
    assert!(matches!(update.next(), Next::Done(Err(_))));
    assert_eq!(update.state().untouched, [id(2)]);
}

/// The coordinator dies after each step: another one goes on from the journal, and every machine has the version once.
#[test]
fn an_update_goes_on_from_its_journal_after_every_step() {
    let now = beginning();
    let outcome = |task: &Task, switched: &BTreeSet<MachineId>| match task {
        Task::Health(machine) if switched.contains(machine) => health(NEW, Switch::Watched),
        Task::Health(_) => health(OLD, Switch::None),
        Task::Fetch(..)
        | Task::Mirror(..)
        | Task::Switch(_)
        | Task::Confirm(_)
        | Task::Revert(_) => Ok(Done),
    };
    for died_after in 0..12 {
        let (mut update, mut switched) = (update(&[1, 2], None, true), BTreeSet::new());
        let mut steps = 0;
        while let Next::Step(_, task) = update.next() {
            if let Task::Switch(machine) = task {
                switched.insert(machine);
            }
            update.handle(outcome(&task, &switched), now);
            steps += 1;
            if steps == died_after {
                let journal = serde_json::to_value(update.state()).unwrap();
                update = resume(serde_json::from_value(journal).unwrap(), &[1, 2]);
            }
        }
        assert_eq!(update.next(), Next::Done(Ok(())), "died after {died_after}");
        let ids: Vec<MachineId> = update.state().updated.iter().map(|it| it.id).collect();
        assert_eq!(ids, [id(1), id(2)], "died after {died_after}");
    }
}
