//! The log of operations: every stage is written to the store, where operators read it. A stage that cannot be written
//! is only in the daemon's log, and the operation continues.

use ployz_api::{Failure, MachineId, MachineUpdate, Name, OperationId};
use ployz_core::OperationRecord;

use crate::host::clock;
use crate::store::buckets::OPERATIONS;
use crate::store::client::{Revised, Store};
use crate::store::error::StoreError;

/// The name of a change of the store's holders.
pub(crate) const STORAGE_CHANGE: &str = "machine-storage";

/// The log of one operation of this daemon.
#[derive(Debug)]
pub(crate) struct OperationLog {
    store: Store,
    record: OperationRecord,
    /// Success is recorded, and this machine may write no more.
    is_closed: bool,
}

impl OperationLog {
    /// Begins an operation.
    pub(crate) fn begin(
        own: MachineId,
        store: &Store,
        operation: &str,
        target: String,
        next: &str,
    ) -> Self {
        let (unix_ms, random) = clock::id_parts();
        let id = OperationId::new(unix_ms, random);
        let now = clock::now().unix_secs;
        Self {
            store: store.clone(),
            record: OperationRecord::begin(id, operation, target, own, next, now),
            is_closed: false,
        }
    }

    /// Continues an operation of the former daemon.
    pub(crate) fn resume(store: &Store, record: OperationRecord) -> Self {
        Self {
            store: store.clone(),
            record,
            is_closed: false,
        }
    }

    /// Writes to another store from now on.
    pub(crate) fn move_to(&mut self, store: &Store) {
        self.store = store.clone();
    }

    /// The operation's id.
    pub(crate) const fn id(&self) -> OperationId {
        self.record.row().operation_id
    }

    /// As it is written.
    #[cfg(test)]
    pub(crate) const fn record(&self) -> &OperationRecord {
        &self.record
    }

    /// Sets the progress of an update; it is written with the next stage.
    pub(crate) fn set_update(&mut self, update: &MachineUpdate) {
        self.record.set_update(update.clone());
    }

    /// The next stage of one machine begins.
    pub(crate) async fn stage_of(&mut self, target: &Name, stage: &str) {
        let now = clock::now().unix_secs;
        self.record.stage_of(Some(target.as_str()), stage, now);
        self.write().await;
    }

    /// The stages of one machine end.
    pub(crate) fn end_of(&mut self, target: &Name) {
        self.record.end_of(target.as_str(), None);
    }

    /// The next stage begins.
    pub(crate) async fn stage(&mut self, stage: &str) {
        self.record.stage(stage, clock::now().unix_secs);
        self.write().await;
    }

    /// Records success in another store, which this machine may not write from now on.
    pub(crate) async fn close_in(&mut self, store: &Store) {
        self.move_to(store);
        self.record.end(None, clock::now().unix_secs);
        self.write().await;
        self.is_closed = true;
    }

    /// Ends the operation.
    pub(crate) async fn end(mut self, failure: Option<&Failure>) {
        self.record.end(failure, clock::now().unix_secs);
        self.write().await;
    }

    /// Writes the record, for operations that must not begin without it.
    pub(crate) async fn announce(&self) -> Result<(), StoreError> {
        let id = self.record.row().operation_id.to_string();
        self.store.put(OPERATIONS, &id, &self.record).await
    }

    /// Writes the record, which has no other writer while the operation runs.
    pub(crate) async fn write(&self) {
        if self.is_closed {
            return;
        }
        let id = self.record.row().operation_id;
        if let Err(error) = self.announce().await {
            tracing::warn!(%id, %error, "cannot write a stage to the store");
        }
    }
}

/// The updates that a machine has begun and not ended.
pub(crate) async fn unfinished_updates(
    store: &Store,
    own: MachineId,
) -> Result<Vec<OperationRecord>, StoreError> {
    let mut records = store.list::<OperationRecord>(OPERATIONS).await?;
    records.retain(|record| {
        let row = record.row();
        row.machine == own && row.ended_at.is_none() && row.update.is_some()
    });
    Ok(records)
}

/// Marks the operations as interrupted that a machine's former daemon had begun before this time (milliseconds since
/// 1970).
pub(crate) async fn interrupt_former(
    store: &Store,
    own: MachineId,
    before_ms: u64,
) -> Result<(), StoreError> {
    // Ids sort by creation time.
    let first = OperationId::new(before_ms, 0);
    for record in store.list::<OperationRecord>(OPERATIONS).await? {
        let row = record.row();
        // An operation of a client continues without the daemon, updates are resumed, and changes of the store are
        // resumed or undone.
        let is_resumed = row.update.is_some() || row.operation == STORAGE_CHANGE;
        let is_ours = row.machine == own && row.lease_until.is_none() && !is_resumed;
        if !is_ours || row.ended_at.is_some() || row.operation_id >= first {
            continue;
        }
        let key = row.operation_id.to_string();
        let found: Option<Revised<OperationRecord>> = store.get(OPERATIONS, &key).await?;
        if let Some(mut found) = found {
            found.value.interrupt(clock::now().unix_secs);
            store
                .update(OPERATIONS, &key, &found.value, found.revision)
                .await?;
        }
    }
    Ok(())
}
