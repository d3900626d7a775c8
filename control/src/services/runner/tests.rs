use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use ployz_api::OperationId;
use ployz_core::OperationRecord;

use super::*;
use crate::testkit::{Offline, run as run_test};

/// What a list of steps does: each is carried out, or waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Step(&'static str, u8),
    Wait(&'static str),
}

/// Goes through its lines; the first failure ends it.
struct Lines {
    lines: Vec<Line>,
    at: usize,
    begun: Instant,
    failed: Option<Failure>,
}

const WAIT: Duration = Duration::from_millis(20);

impl Procedure for Lines {
    type Step = u8;
    type Answer = ();

    fn next(&self) -> Next<u8> {
        let stage = |name| {
            Some(Stage {
                machine: None,
                name,
            })
        };
        match (&self.failed, self.lines.get(self.at)) {
            (Some(failure), _) => Next::Done(Err(failure.clone())),
            (None, Some(Line::Step(name, step))) => Next::Step(stage(*name), *step),
            (None, Some(Line::Wait(name))) => Next::Wait(stage(*name), self.begun + WAIT),
            (None, None) => Next::Done(Ok(())),
        }
    }

    fn handle(&mut self, outcome: Result<(), Failure>, _now: Instant) {
        self.failed = outcome.err();
        self.at += 1;
    }

    fn handle_timeout(&mut self, now: Instant) {
        assert!(now >= self.begun + WAIT, "the runner woke too early");
        self.at += 1;
    }
}

/// What has happened, in its order.
type Events = Rc<RefCell<Vec<String>>>;

struct Recorder {
    events: Events,
    failing: Option<u8>,
}

impl Recorder {
    fn record(&self, event: String) {
        self.events.borrow_mut().push(event);
    }
}

impl Executor for Recorder {
    type Procedure = Lines;

    async fn carry_out(&mut self, step: u8, log: &mut OperationLog) -> Result<(), Failure> {
        let row = log.record().row();
        let stage = row.stages.last().map(|it| it.stage.clone());
        self.record(format!("step {step} in {}", stage.unwrap_or_default()));
        if self.failing == Some(step) {
            return Err(Failure::new(Code::Conflict, format!("step {step} failed")));
        }
        Ok(())
    }

    fn name_of(&self, machine: MachineId) -> Name {
        Name::nearest(&machine.to_string())
    }

    async fn save(&mut self, procedure: &Lines, _log: &mut OperationLog) {
        self.record(format!("saved at {}", procedure.at));
    }

    async fn close(&mut self, outcome: &Result<(), Failure>) {
        self.record(format!("closed {}", outcome.is_ok()));
    }
}

fn events_of(lines: &[Line], failing: Option<u8>) -> Vec<String> {
    let events = Events::default();
    let recorded = Rc::clone(&events);
    let lines = lines.to_vec();
    run_test(async move {
        let store = Offline::new().store().await;
        let id = OperationId::new(1, 1);
        let own = MachineId::new(1, 1);
        let record = OperationRecord::begin(id, "test", String::new(), own, "", 0);
        let log = OperationLog::resume(&store, record);
        let procedure = Lines {
            lines,
            at: 0,
            begun: clock::now().instant,
            failed: None,
        };
        let recorder = Recorder {
            events: recorded,
            failing,
        };
        run(procedure, recorder, log).await;
    });
    events.take()
}

#[test]
fn steps_are_carried_out_in_their_stage_and_saved_before_the_next_one() {
    let lines = [
        Line::Step("first", 1),
        Line::Step("first", 2),
        Line::Wait("second"),
        Line::Step("third", 3),
    ];
    let expected = [
        "step 1 in first",
        "saved at 1",
        "step 2 in first",
        "saved at 2",
        "step 3 in third",
        "saved at 4",
        "closed true",
    ];
    assert_eq!(events_of(&lines, None), expected);
}

#[test]
fn a_failure_is_saved_and_ends_the_work() {
    let lines = [Line::Step("first", 1), Line::Step("second", 2)];
    let expected = ["step 1 in first", "saved at 1", "closed false"];
    assert_eq!(events_of(&lines, Some(1)), expected);
}
