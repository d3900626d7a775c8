//! What an update is planned from: which machines, and which version each has.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use ployz_api::{Authority, Failure, MachineId, Outcome, Payload, Request};
use ployz_core::{Candidate, MachineRecord, VersionStep};
use ployz_install::{Change, Version};
use tokio::time::timeout;

use crate::host::program::blocking;
use crate::machine::Machine;
use crate::network::Network;
use crate::services::update::member::release;

/// Machines that are asked for their version at a time, and for how long each.
const ASKED_MAX: usize = 64;
const STATUS_WAIT: Duration = Duration::from_secs(4);

/// The version that was said, or the latest that is released.
pub(crate) async fn wanted_version(
    here: &Machine,
    version: Option<&str>,
) -> Result<Version, Failure> {
    match version {
        Some(version) => version.parse(),
        None => {
            let release = release(here)?;
            blocking(move || release.latest()).await
        }
    }
}

/// Those that are wanted, and how far each is from the version.
pub(crate) async fn candidates(
    here: &Machine,
    network: &Network,
    wanted: &[String],
    version: &Version,
) -> Result<Vec<Candidate>, Failure> {
    let machines = selected(network, wanted)?;
    let asking = |machine: MachineRecord| async move {
        let from = version_of(here, network, machine.id).await;
        Candidate {
            id: machine.id,
            name: machine.name.to_string(),
            is_storage: machine.authority == Authority::Storage,
            step: version_step(from.as_ref(), version),
        }
    };
    let asked = stream::iter(machines).map(asking);
    Ok(asked.buffer_unordered(ASKED_MAX).collect().await)
}

fn selected(network: &Network, wanted: &[String]) -> Result<Vec<MachineRecord>, Failure> {
    let view = network.view();
    let select = |wanted: &String| view.select(wanted).map(|it| it.id).map_err(Failure::from);
    let wanted: Vec<MachineId> = wanted.iter().map(select).collect::<Result<_, _>>()?;
    let machines = view.machines().cloned();
    Ok(machines
        .filter(|machine| wanted.is_empty() || wanted.contains(&machine.id))
        .collect())
}

/// What a machine says that it runs, or what it last told the store if it cannot be asked now.
async fn version_of(here: &Machine, network: &Network, id: MachineId) -> Option<Version> {
    if id == here.identity.machine_id {
        return Some(Version::own());
    }
    let asking = Box::pin(ask_status(here, id));
    if let Ok(Ok(answer)) = timeout(STATUS_WAIT, asking).await
        && let Some(Payload::Status(status)) = answer.payload
    {
        return status.version.parse().ok();
    }
    let view = network.view();
    view.observed(id)
        .and_then(|(observed, _)| observed.software_version.parse().ok())
}

async fn ask_status(here: &Machine, id: MachineId) -> Outcome {
    let client = here.client()?;
    Ok(client.ask_as_admin(id, &Request::Status).await?)
}

/// One that has not said what it has says so when it is asked to fetch the version.
fn version_step(from: Option<&Version>, to: &Version) -> VersionStep {
    let Some(from) = from else {
        return VersionStep::Ahead;
    };
    match from.to(to) {
        Change::None => VersionStep::None,
        Change::Downgrade => VersionStep::Back,
        Change::Upgrade | Change::Rebuild if from.mixes_with(to) => VersionStep::Ahead,
        Change::Upgrade | Change::Rebuild => VersionStep::TooFar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine is brought to the next minor version and no further, never back, and asked if it has not said what it
    /// has.
    #[test]
    fn a_version_is_none_ahead_back_or_too_far() {
        let step = |from: Option<&str>, to: &str| {
            let from: Option<Version> = from.map(|it| it.parse().unwrap());
            version_step(from.as_ref(), &to.parse().unwrap())
        };
        assert_eq!(step(None, "0.2.0"), VersionStep::Ahead);
        assert_eq!(step(Some("0.2.0"), "0.2.0"), VersionStep::None);
        assert_eq!(step(Some("0.2.0"), "0.2.1"), VersionStep::Ahead);
        assert_eq!(step(Some("0.2.1"), "0.2.0"), VersionStep::Back);
        assert_eq!(step(Some("0.2.0"), "0.1.9"), VersionStep::Back);
        assert_eq!(step(Some("0.2.0"), "0.9.0"), VersionStep::TooFar);
        assert_eq!(step(Some("0.2.0"), "3.0.0"), VersionStep::TooFar);
    }
}
