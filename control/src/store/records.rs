//! Changes of a machine's record: it is read, edited, and written if its revision is still the same.

use ployz_api::MachineId;
use ployz_core::MachineRecord;

use crate::store::buckets::MACHINES;
use crate::store::client::{Revised, Store};
use crate::store::error::StoreError;

/// Each lost attempt means that another writer has finished: this many can change a record at a time.
const ATTEMPTS: usize = 64;
/// A record before a change and after it.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) before: MachineRecord,
    pub(crate) after: MachineRecord,
}

/// Changes a record. `edit` is called again if another writer was faster.
///
/// # Errors
/// [`StoreError::MachineRemoved`], [`StoreError::Contended`] after too many attempts, and what `edit` returns.
pub(crate) async fn change<E: From<StoreError>>(
    store: &Store,
    id: MachineId,
    edit: impl Fn(&mut MachineRecord) -> Result<(), E>,
) -> Result<Changed, E> {
    let key = id.to_string();
    for _ in 0..ATTEMPTS {
        let found: Option<Revised<MachineRecord>> = store.get(MACHINES, &key).await?;
        let Some(Revised { value, revision }) = found else {
            return Err(StoreError::MachineRemoved(id).into());
        };
        let mut after = value.clone();
        edit(&mut after)?;
        let written = after == value || store.update(MACHINES, &key, &after, revision).await?;
        if written {
            return Ok(Changed {
                before: value,
                after,
            });
        }
    }
    Err(StoreError::Contended(id).into())
}
