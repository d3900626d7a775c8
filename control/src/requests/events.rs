//! Reading the audit trail.

use ployz_api::{EVENTS_LIMIT_MAX, EventList, Failure, MachineId, Outcome, Payload};

use crate::machine::Machine;
use crate::requests::machines::selected;
use crate::store::Following;

/// The last events, of one machine or of all.
pub(super) async fn list(here: &Machine, machine: Option<&str>, limit: u32) -> Outcome {
    let network = here.running_network()?;
    let writer = writer(here, machine)?;
    let limit = limit.min(EVENTS_LIMIT_MAX);
    let (events, _) = Following::begin(&network.store, writer, limit).await?;
    Ok(Payload::EventList(EventList { events }).into())
}

/// The machine whose events are wanted. One that was removed is known by its id.
///
/// # Errors
/// `MACHINE_NOT_FOUND`, `MACHINE_AMBIGUOUS`, `NETWORK_NOT_RUNNING`.
pub(crate) fn writer(here: &Machine, machine: Option<&str>) -> Result<Option<MachineId>, Failure> {
    let writer = machine.map(|wanted| match wanted.parse::<MachineId>() {
        Ok(id) => Ok(id),
        Err(_) => selected(here, wanted),
    });
    writer.transpose()
}
