//! The records of long work: a state machine whose every step is written to the store.
//!
//! ```text
//!   begin ──▶ Running ──┬─ end(Ok) ────▶ Done
//!              │   ▲    ├─ end(failure) ▶ Failed
//!              └stage┘  └─ interrupt ───▶ Interrupted
//! ```
//!
//! What is over stays as it is.

use ployz_api::{Code, Failure, MachineId, OperationId, OperationRow, Stage, WorkState};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::machines::RECORD_VERSION;

/// Long work in bucket `operations`, under its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRecord {
    version: u32,
    #[serde(flatten)]
    row: OperationRow,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl OperationRecord {
    /// Work that begins now (seconds since 1970) on this machine, and what to do about it should it not end well.
    pub fn begin(
        id: OperationId,
        operation: &str,
        target: String,
        machine: MachineId,
        next: &str,
        now: u64,
    ) -> Self {
        Self {
            version: RECORD_VERSION,
            row: OperationRow {
                operation_id: id,
                operation: operation.to_owned(),
                target,
                machine,
                state: WorkState::Running,
                started_at: now,
                ended_at: None,
                stages: Vec::new(),
                code: None,
                message: String::new(),
                next: next.to_owned(),
            },
            unknown: Map::new(),
        }
    }

    /// The stage before it is done, and this one begins.
    pub fn stage(&mut self, stage: &str, now: u64) {
        if self.row.state == WorkState::Running {
            self.settle(WorkState::Done);
            self.row.stages.push(Stage {
                stage: stage.to_owned(),
                state: WorkState::Running,
                started_at: now,
            });
        }
    }

    /// It is over.
    pub fn end(&mut self, failure: Option<&Failure>, now: u64) {
        match failure {
            None => self.finish(WorkState::Done, Code::Ok, "", now),
            Some(failure) => {
                self.finish(WorkState::Failed, failure.code, &failure.message, now);
            }
        }
    }

    /// Whoever did it is no more.
    pub fn interrupt(&mut self, now: u64) {
        let message = "the daemon that did it has ended meanwhile";
        self.finish(WorkState::Interrupted, Code::Internal, message, now);
    }

    /// As a list shows it.
    pub const fn row(&self) -> &OperationRow {
        &self.row
    }

    fn finish(&mut self, state: WorkState, code: Code, message: &str, now: u64) {
        if self.row.state == WorkState::Running {
            self.settle(state);
            self.row.state = state;
            self.row.code = Some(code);
            message.clone_into(&mut self.row.message);
            self.row.ended_at = Some(now);
        }
    }

    /// The stage that runs is in this state from now on.
    fn settle(&mut self, state: WorkState) {
        if let Some(last) = self.row.stages.last_mut() {
            last.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: OperationId = OperationId::new(1, 1);

    fn begun() -> OperationRecord {
        let machine = MachineId::new(2, 2);
        let mut record =
            OperationRecord::begin(ID, "machine-join", "m2".to_owned(), machine, "again", 10);
        record.stage("name", 11);
        record.stage("record", 12);
        record
    }

    fn states(record: &OperationRecord) -> Vec<WorkState> {
        record.row.stages.iter().map(|stage| stage.state).collect()
    }

    /// Every end, and that nothing comes after it.
    #[test]
    fn work_ends_once() {
        use WorkState::{Done, Failed, Interrupted, Running};
        let failure = Failure::new(Code::Conflict, "no subnet left");
        assert_eq!(states(&begun()), [Done, Running]);
        type Step<'a> = &'a dyn Fn(&mut OperationRecord);
        let steps: [(Step<'_>, WorkState, Code); 3] = [
            (&|it| it.end(None, 20), Done, Code::Ok),
            (&|it| it.end(Some(&failure), 20), Failed, Code::Conflict),
            (&|it| it.interrupt(20), Interrupted, Code::Internal),
        ];
        for (step, state, code) in steps {
            let mut record = begun();
            step(&mut record);
            assert_eq!((record.row.state, record.row.code), (state, Some(code)));
            assert_eq!(states(&record), [Done, state]);
            assert_eq!(record.row.ended_at, Some(20));
            let ended = record.clone();
            record.stage("later", 30);
            for (step, ..) in steps {
                step(&mut record);
            }
            assert_eq!(record, ended);
        }
    }

    #[test]
    fn what_a_newer_version_wrote_is_kept() {
        let mut json = serde_json::to_value(begun()).unwrap();
        json["later"] = "kept".into();
        let record: OperationRecord = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(record).unwrap(), json);
    }
}
