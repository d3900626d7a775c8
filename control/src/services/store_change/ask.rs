//! Asking the other machines for their part, and telling them where the store is.

use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use ployz_api::{Failure, MachineId, Payload, Request, StorageStep, StoreLocation};
use tokio::time::sleep;

use crate::host::clock;
use crate::machine::Machine;
use crate::network::{Client, Host as _, Network};
use crate::services::runner::ask_part;
use crate::services::store_change::journal::STEP_WAIT;
use crate::services::store_change::member::step;
use crate::services::store_change::shares::storage_list;

/// Machines that are told at a time.
const ANNOUNCED_AT_ONCE: usize = 16;
/// How often it is looked who has not been heard.
const SILENCE_POLL: Duration = Duration::from_secs(20);
/// Three reports in a row that have not come.
const SILENCE_SECS: u64 = 30;

/// What a machine does for a change of the holders.
pub(super) enum Part {
    Step(StorageStep),
    /// Says who holds the store, as it sees it.
    List,
}

impl From<Part> for Request {
    fn from(part: Part) -> Self {
        match part {
            Part::Step(step) => Self::StorageStep(step),
            Part::List => Self::StorageList,
        }
    }
}

/// Has a machine do its part, or answer. Another one is reached in the overlay alone: what it is told is secret to
/// every machine that only has some certificate of the network.
pub(super) async fn ask(
    here: &Rc<Machine>,
    machine: MachineId,
    part: Part,
    patience: Duration,
) -> Result<Option<Payload>, Failure> {
    let own = async |part| match part {
        Part::Step(asked) => step(here, asked).await,
        Part::List => {
            let list = storage_list(here).await?;
            Ok(Payload::StorageList(list).into())
        }
    };
    let other = async |client: Client, part: Part| {
        let credential = here.admin_credential()?;
        let request = part.into();
        let asked = client.ask_in_overlay(machine, credential, &request);
        Ok(asked.await?)
    };
    ask_part(here, machine, part, patience, own, other).await
}

/// Asks the same of several, some at a time; those that have not done it, and why.
pub(crate) async fn ask_all(
    here: &Rc<Machine>,
    ids: impl IntoIterator<Item = MachineId>,
    request: impl Fn() -> StorageStep,
) -> Vec<(MachineId, Failure)> {
    let asking = ids.into_iter().map(|id| {
        let part = Part::Step(request());
        async move { (id, ask(here, id, part, STEP_WAIT).await) }
    });
    let answers = futures_util::stream::iter(asking).buffer_unordered(ANNOUNCED_AT_ONCE);
    let failed = answers.filter_map(async |(id, answer)| Some((id, answer.err()?)));
    failed.collect().await
}

/// Tells those machines where the store is that are there and that the store has not heard of: they were away when it
/// moved. Never returns, where the store is held.
pub(crate) async fn announce_to_silent(here: &Rc<Machine>, network: &Network) {
    if network.storage.is_none() {
        return std::future::pending().await;
    }
    loop {
        sleep(SILENCE_POLL).await;
        // A store that does not answer has not heard of anybody.
        if network.store.unix_secs().await.is_err() {
            continue;
        }
        let silent = silent(here, network).await;
        let location = network.membership.store_location();
        for (id, failure) in announce(here, silent, &location).await {
            tracing::debug!(%id, cause = %failure, "store location not announced to a silent machine");
        }
    }
}

pub(crate) async fn announce(
    here: &Rc<Machine>,
    ids: Vec<MachineId>,
    location: &StoreLocation,
) -> Vec<(MachineId, Failure)> {
    ask_all(here, ids, || StorageStep::Adopt(location.clone())).await
}

async fn silent(here: &Machine, network: &Network) -> Vec<MachineId> {
    let Ok(sessions) = here.sessions().await else {
        return Vec::new();
    };
    let now = clock::now().unix_secs;
    let view = network.view();
    let is_silent = |id: MachineId| {
        let heard = view.observed(id);
        heard.is_none_or(|(_, at)| now.saturating_sub(at) > SILENCE_SECS)
    };
    let machines = view.machines().filter(|it| it.id != network.own());
    let silent = machines.filter(|it| is_silent(it.id));
    let there = silent.filter(|it| it.key().is_some_and(|key| sessions.contains_key(&key)));
    there.map(|it| it.id).collect()
}
