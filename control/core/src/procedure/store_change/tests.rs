use super::*;
use crate::machines::examples::id;
use crate::procedure::beginning;
use StoreChangeStep as Step;

fn members(numbers: &[u8]) -> BTreeSet<MachineId> {
    numbers.iter().map(|number| id(*number)).collect()
}

fn step_of(change: &StoreChangeProcedure) -> Step {
    match change.next() {
        Next::Step(_, step) => step,
        other @ (Next::Wait(..) | Next::Done(_)) => panic!("{other:?}"),
    }
}

fn broken() -> Failure {
    Failure::new(Code::Internal, "it broke")
}

/// Everything succeeds: the steps in their order, and the outcome.
fn run(mut change: StoreChangeProcedure) -> (Vec<Step>, Result<(), Failure>) {
    let (mut steps, now) = (Vec::new(), beginning());
    loop {
        match change.next() {
            Next::Step(_, step) => steps.push(step),
            Next::Wait(..) => panic!("nothing is waited for"),
            Next::Done(outcome) => return (steps, outcome),
        }
        change.handle(Ok(()), now);
    }
}

const UNDOABLE: [Step; 6] = [
    Step::Elect,
    Step::Freeze,
    Step::Copy,
    Step::Compare,
    Step::WriteRecords,
    Step::Commit,
];

#[test]
fn a_coordinator_that_stays_enters_before_it_announces_and_one_that_leaves_after_it() {
    let prepared = |numbers: &[u8]| numbers.iter().map(|it| Step::Prepare(id(*it))).collect();
    for (own, ending) in [
        (0, [Step::Enter, Step::Announce]),
        (9, [Step::Announce, Step::Enter]),
    ] {
        let mut expected: Vec<Step> = prepared(&[0, 1, 2]);
        expected.extend(UNDOABLE);
        let after = [ending.to_vec(), vec![Step::AskComplete, Step::Settle]].concat();
        expected.extend(after.clone());
        let all = members(&[0, 1, 2]);
        assert_eq!(
            run(StoreChangeProcedure::begin(&all, id(own))),
            (expected, Ok(()))
        );
        assert_eq!(
            run(StoreChangeProcedure::complete(&all, id(own))),
            (after, Ok(()))
        );
    }
}

#[test]
fn every_failure_before_the_commit_thaws_and_abandons_and_is_the_outcome() {
    let all = members(&[0, 1, 2]);
    let count = all.len() + UNDOABLE.len();
    for failing in 0..count {
        let (mut change, now) = (StoreChangeProcedure::begin(&all, id(0)), beginning());
        for _ in 0..failing {
            change.handle(Ok(()), now);
        }
        change.handle(Err(broken()), now);
        assert_eq!(step_of(&change), Step::Thaw, "step {failing} failed");
        // The store does not take writes yet, however often it is told to: nothing else happens until it does.
        for _ in 0..3 {
            change.handle(Err(broken()), now);
            assert_eq!(change.next(), Next::Wait(None, now + THAW_POLL));
            change.handle_timeout(now);
            assert!(
                matches!(change.next(), Next::Wait(..)),
                "it is not time yet"
            );
            change.handle_timeout(now + THAW_POLL);
            assert_eq!(step_of(&change), Step::Thaw);
        }
        change.handle(Ok(()), now);
        assert_eq!(step_of(&change), Step::Abandon);
        change.handle(Err(broken()), now);
        assert_eq!(change.next(), Next::Done(Err(broken())));
    }
}

#[test]
fn no_failure_after_the_commit_turns_back() {
    let all = members(&[0]);
    for own in [0, 9] {
        let (mut change, now) = (StoreChangeProcedure::complete(&all, id(own)), beginning());
        for _ in 0..2 {
            assert!(matches!(step_of(&change), Step::Enter | Step::Announce));
            change.handle(Err(broken()), now);
        }
        assert_eq!(step_of(&change), Step::AskComplete);
        change.handle(Ok(()), now);
        assert_eq!(step_of(&change), Step::Settle);
        change.handle(Err(broken()), now);
        assert_eq!(change.next(), Next::Done(Ok(())));
    }
}

#[test]
fn holders_that_do_not_catch_up_are_waited_for_and_then_said() {
    let (mut change, now) = (
        StoreChangeProcedure::complete(&members(&[0]), id(0)),
        beginning(),
    );
    change.handle(Ok(()), now);
    change.handle(Ok(()), now);
    let mut at = now;
    while at <= now + COMPLETE_WAIT {
        change.handle(Err(broken()), at);
        assert_eq!(
            change.next(),
            Next::Wait(Stage::of_all("complete"), at + COMPLETE_POLL)
        );
        at += COMPLETE_POLL;
        change.handle_timeout(at);
        assert_eq!(step_of(&change), Step::AskComplete);
    }
    change.handle(Err(broken()), at);
    let Next::Done(Err(failure)) = change.next() else {
        panic!("the patience is at its end");
    };
    assert_eq!(failure.code, Code::Timeout);
}

#[test]
fn a_coordinator_that_died_before_the_commit_is_undone_with_the_cause() {
    let change = StoreChangeProcedure::undo(&members(&[0]), id(0), broken());
    assert_eq!(
        run(change),
        (vec![Step::Thaw, Step::Abandon], Err(broken()))
    );
}
