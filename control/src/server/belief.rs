//! Belief in a caller over time: a connection and a stream of answers end with it.

use std::time::Duration;

use ployz_api::{Failure, MachineId, Operation};

use crate::host::tls::Caller;
use crate::network::Network;
use crate::server::authorise::still_believed;

/// Revocations and removals are news. What time alone decides is looked at this often.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Waits until a machine is not in the network any more.
pub(super) async fn removed(network: &Network, id: MachineId) {
    let mut news = network.disbelief();
    while network.view().machine(id).is_some() {
        // The network has the other end, and is held.
        let _late = tokio::time::timeout(RECHECK_INTERVAL, news.changed()).await;
    }
}

/// Waits until the network does not believe a caller any more; for ever if there is no network to say so.
pub(super) async fn disbelieved(network: Option<&Network>, caller: &Caller) -> Failure {
    let Some(network) = network else {
        return std::future::pending().await;
    };
    let mut news = network.disbelief();
    loop {
        // A machine with an expired certificate may stay, to have it renewed; what else it asks is refused each time.
        if let Err(failure) = still_believed(network, caller, Operation::CertificateRenew) {
            return failure;
        }
        // The network has the other end, and is held.
        let _late = tokio::time::timeout(RECHECK_INTERVAL, news.changed()).await;
    }
}
