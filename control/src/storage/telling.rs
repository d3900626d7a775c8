//! Asking the other machines for their part, and telling them where the store is.

use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use ployz_api::{Code, Failure, MachineId, Payload, Request, StorageStep, StoreLocation};
use tokio::time::{sleep, timeout};

use super::{STEP_WAIT, step};
use crate::clock;
use crate::daemon::Daemon;
use crate::network::{Host as _, Network};
use crate::relay;

/// Machines that are told at a time.
const TOLD_AT_A_TIME: usize = 16;
/// How often it is looked who has not been heard.
const SILENCE_POLL: Duration = Duration::from_secs(20);
/// Three reports in a row that have not come.
const SILENCE_SECS: u64 = 30;

/// Has a machine answer, which may be this one. The other one is reached in the overlay alone: what it is told is for nobody who only has
/// some certificate of the network.
pub(super) async fn ask(
    daemon: &Rc<Daemon>,
    id: MachineId,
    request: Request,
    patience: Duration,
) -> Result<Option<Payload>, Failure> {
    let asking = async {
        if id == daemon.identity.machine_id
            && let Request::StorageStep(asked) = request
        {
            return step(daemon, asked).await;
        }
        let credential = daemon.admin_credential()?;
        relay::ask_in_overlay(daemon, id, credential, &request).await
    };
    let late = |_| Failure::new(Code::Timeout, format!("no answer within {patience:?}"));
    let answer = timeout(patience, Box::pin(asking)).await;
    Ok(answer.map_err(late)??.payload)
}

/// Asks the same of several, some at a time; those that have not done it, and why.
pub(super) async fn ask_all(
    daemon: &Rc<Daemon>,
    ids: impl IntoIterator<Item = MachineId>,
    request: impl Fn() -> StorageStep,
) -> Vec<(MachineId, Failure)> {
    let asking = ids.into_iter().map(|id| {
        let request = Request::StorageStep(request());
        async move { (id, ask(daemon, id, request, STEP_WAIT).await) }
    });
    let answers = futures_util::stream::iter(asking).buffer_unordered(TOLD_AT_A_TIME);
    let failed = answers.filter_map(async |(id, answer)| Some((id, answer.err()?)));
    failed.collect().await
}

/// Tells those machines where the store is that are there and that the store has not heard of: they were away when it moved. Never
/// returns, where the store is held.
pub(crate) async fn tell_the_silent(daemon: &Rc<Daemon>, network: &Network) {
    if network.storage.is_none() {
        return std::future::pending().await;
    }
    loop {
        sleep(SILENCE_POLL).await;
        // A store that does not answer has not heard of anybody.
        if network.store.unix_secs().await.is_err() {
            continue;
        }
        let silent = silent(daemon, network).await;
        let place = network.membership.store_location();
        for (id, failure) in tell(daemon, silent, &place).await {
            tracing::debug!(%id, cause = %failure, "a silent machine is not told where the store is");
        }
    }
}

pub(super) async fn tell(
    daemon: &Rc<Daemon>,
    ids: Vec<MachineId>,
    place: &StoreLocation,
) -> Vec<(MachineId, Failure)> {
    ask_all(daemon, ids, || StorageStep::Adopt(place.clone())).await
}

async fn silent(daemon: &Daemon, network: &Network) -> Vec<MachineId> {
    let Ok(sessions) = daemon.sessions().await else {
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
