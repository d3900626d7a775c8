//! What a network leaves on a machine's disk.

use ployz_api::Failure;

use crate::host::membership::{AUTHORITY_FILE, CERTIFICATES_FILE, FILE, VIEW_FILE};
use crate::machine::Machine;
use crate::nats;
use crate::services::store_change;

/// Deletes what there is of a network that has been left.
pub(crate) async fn delete(here: &Machine) -> Result<(), Failure> {
    // The file that makes it a member goes first: what is left after that is of no consequence.
    for file in [FILE, nats::DIRECTORY, AUTHORITY_FILE, CERTIFICATES_FILE] {
        here.files.remove(file)?;
    }
    // The next network must not begin with the machines of this one.
    here.files.forget(VIEW_FILE)?;
    store_change::delete_leftovers(here).await
}
