//! The records of long work: a state machine whose every step is written to the store.
//!
//! ```text
//!   begin ──▶ Running ──┬─ end(Ok) ────▶ Done
//!              │   ▲    ├─ end(failure) ▶ Failed
//!              └stage┘  └─ interrupt ───▶ Interrupted
//! ```
//!
//! An operation that is over stays as it is. A client's work has a lease, which it renews: when that has run out, the
//! work is shown as interrupted, without a write.

use ployz_api::{
    Code, Failure, LEASE_SECS, MachineId, MachineUpdate, OperationId, OperationRow, Stage,
    WorkState,
};
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
                lease_until: None,
                stages: Vec::new(),
                code: None,
                message: String::new(),
                next: next.to_owned(),
                update: None,
            },
            unknown: Map::new(),
        }
    }

    /// A client does it, and is alive now.
    pub const fn renew(&mut self, now: u64) {
        self.row.lease_until = Some(now.saturating_add(LEASE_SECS));
    }

    /// The stage before it is done, and this one begins.
    pub fn stage(&mut self, stage: &str, now: u64) {
        self.stage_of(None, stage, now);
    }

    /// The same for one of several targets, each of which has stages of its own.
    pub fn stage_of(&mut self, target: Option<&str>, stage: &str, now: u64) {
        if self.row.state == WorkState::Running {
            self.end_stage(target, WorkState::Done);
            self.row.stages.push(Stage {
                stage: stage.to_owned(),
                target: target.map(str::to_owned),
                state: WorkState::Running,
                started_at: now,
            });
        }
    }

    /// Ends one of several targets.
    pub fn end_of(&mut self, target: &str, cause: Option<&str>) {
        if self.row.state != WorkState::Running {
            return;
        }
        let Some(cause) = cause else {
            self.end_stage(Some(target), WorkState::Done);
            return;
        };
        self.end_stage(Some(target), WorkState::Failed);
        if !self.row.message.is_empty() {
            self.row.message += "; ";
        }
        self.row.message += &format!("{target}: {cause}");
    }

    /// Ends the operation.
    pub fn end(&mut self, failure: Option<&Failure>, now: u64) {
        match failure {
            None => self.finish(WorkState::Done, Code::Ok, "", now),
            Some(failure) => {
                self.finish(WorkState::Failed, failure.code, &failure.message, now);
            }
        }
    }

    /// An update is so far.
    pub fn set_update(&mut self, update: MachineUpdate) {
        self.row.update = Some(Box::new(update));
    }

    /// Ends an operation whose daemon has ended.
    pub fn interrupt(&mut self, now: u64) {
        let message = "the daemon that ran this operation has ended";
        self.finish(WorkState::Interrupted, Code::Internal, message, now);
    }

    /// As it is.
    pub const fn row(&self) -> &OperationRow {
        &self.row
    }

    /// As it is shown at this time: a client that has not renewed its lease is gone.
    pub fn shown(&self, now: u64) -> OperationRow {
        let mut shown = self.clone();
        if let Some(until) = self.row.lease_until.filter(|until| *until <= now) {
            let message = "the client that ran this operation stopped reporting";
            shown.finish(WorkState::Interrupted, Code::Timeout, message, until);
        }
        shown.row
    }

    fn finish(&mut self, state: WorkState, code: Code, message: &str, now: u64) {
        if self.row.state == WorkState::Running {
            for stage in &mut self.row.stages {
                if stage.state == WorkState::Running {
                    stage.state = state;
                }
            }
            self.row.state = state;
            self.row.code = Some(code);
            message.clone_into(&mut self.row.message);
            self.row.ended_at = Some(now);
        }
    }

    /// The stage of this target that runs is in this state from now on.
    fn end_stage(&mut self, target: Option<&str>, state: WorkState) {
        let running =
            self.row.stages.iter_mut().rev().find(|stage| {
                stage.target.as_deref() == target && stage.state == WorkState::Running
            });
        if let Some(stage) = running {
            stage.state = state;
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

    /// Targets have stages of their own, and one that fails leaves the others alone.
    #[test]
    fn targets_go_on_by_themselves() {
        use WorkState::{Done, Failed, Running};
        let mut record = begun();
        record.row.stages.clear();
        record.stage_of(Some("a"), "install", 20);
        record.stage_of(Some("b"), "install", 21);
        record.stage_of(Some("a"), "join", 22);
        assert_eq!(states(&record), [Done, Running, Running]);
        record.end_of("b", Some("disk full"));
        record.end_of("b", None);
        assert_eq!(states(&record), [Done, Failed, Running]);
        assert_eq!(record.row.message, "b: disk full");
        record.end_of("a", None);
        assert_eq!(states(&record), [Done, Failed, Done]);
        assert_eq!(record.row.state, Running, "until all has been said");
    }

    #[test]
    fn work_of_a_client_that_is_silent_is_interrupted() {
        let mut record = begun();
        assert_eq!(record.shown(u64::MAX).state, WorkState::Running);
        record.renew(100);
        let until = 100 + LEASE_SECS;
        assert_eq!(record.shown(until - 1), record.row);
        let shown = record.shown(until);
        assert_eq!(shown.state, WorkState::Interrupted);
        assert_eq!(shown.ended_at, Some(until));
        assert_eq!(shown.stages.last().unwrap().state, WorkState::Interrupted);
        record.end(None, until);
        assert_eq!(record.shown(u64::MAX).state, WorkState::Done);
    }

    #[test]
    fn what_a_newer_version_wrote_is_kept() {
        let mut json = serde_json::to_value(begun()).unwrap();
        json["later"] = "kept".into();
        let record: OperationRecord = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(record).unwrap(), json);
    }
}
