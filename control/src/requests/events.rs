//! Reading the audit trail.

use ployz_api::{EVENTS_LIMIT_MAX, EventList, Outcome, Payload};

use crate::machine::Machine;
use crate::store::Following;

/// The last events.
pub(super) async fn list(here: &Machine, limit: u32) -> Outcome {
    let network = here.running_network()?;
    let (events, _) = Following::begin(&network.store, limit.min(EVENTS_LIMIT_MAX)).await?;
    Ok(Payload::EventList(EventList { events }).into())
}
