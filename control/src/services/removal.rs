//! Whether this machine was removed without being asked. Nobody tells it, and the store does not take its key any more:
//! so it asks a machine that holds the store, which has the word.

use std::time::Duration;

use ployz_api::{Code, Outcome, Request};
use tokio::time::{sleep, timeout};

use crate::machine::Machine;
use crate::network::{Host as _, Network, ask_once};

/// How often it is asked while the store does not answer.
const POLL: Duration = Duration::from_secs(5);
/// A connection, at one address after the other, and an answer.
const ASK_WAIT: Duration = Duration::from_secs(15);

/// Asks, as long as the store does not answer. Never returns.
pub(crate) async fn watch(here: &Machine, network: &Network) {
    if network.storage.is_some() {
        return std::future::pending().await;
    }
    loop {
        sleep(POLL).await;
        if network.store.is_connected() {
            network.set_removed(false);
            continue;
        }
        match timeout(ASK_WAIT, Box::pin(ask(here, network))).await {
            Ok(Ok(_)) => network.set_removed(false),
            Ok(Err(failure)) if failure.code == Code::Forbidden => network.set_removed(true),
            // Nobody has said anything.
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

async fn ask(here: &Machine, network: &Network) -> Outcome {
    let coordinator = network.coordinator_id(&here.sessions().await.unwrap_or_default())?;
    let session = here.client()?.reach(coordinator).await?;
    let outcome = ask_once(&session, coordinator, &Request::Status).await;
    session.close().await;
    Ok(outcome?)
}
