//! Changing a machine's record: read, changed, and written if it is still as it was read.

use ployz_api::{Code, Failure, MachineId};
use ployz_core::MachineRecord;

use crate::store::buckets::MACHINES;
use crate::store::client::{Revised, Store};

/// Whoever loses has lost to somebody who is done then: so many can be at one record at a time.
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
/// `MACHINE_NOT_FOUND`, `CONFLICT` after too many attempts, `STORE_UNAVAILABLE`, and what `edit` returns.
pub(crate) async fn change(
    store: &Store,
    id: MachineId,
    edit: impl Fn(&mut MachineRecord) -> Result<(), Failure>,
) -> Result<Changed, Failure> {
    let key = id.to_string();
    for _ in 0..ATTEMPTS {
        let found: Option<Revised<MachineRecord>> = store.get(MACHINES, &key).await?;
        let Some(Revised { value, revision }) = found else {
            let message = format!("machine {id} has been removed");
            return Err(Failure::new(Code::MachineNotFound, message).hint("ployzctl machine ls"));
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
    let message = format!("others keep changing machine {id}");
    Err(Failure::new(Code::Conflict, message).hint("run the same command again"))
}
