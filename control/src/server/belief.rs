//! Belief in a caller over time: a connection and a stream of answers end with it.

use std::time::Duration;

use ployz_api::{CertificateName, Failure, MachineId, Role};

use crate::network::Network;
use crate::server::authorise::still_believed;

/// Revocations and removals are news. What time alone decides is looked at this often.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Waits until a machine is not in the network any more.
pub(super) async fn removed(network: &Network, id: MachineId) {
    let member = CertificateName {
        subject: id.to_string(),
        role: Role::Machine,
        network: network.membership.network_id.to_string(),
    };
    disbelieved(Some(network), &member).await;
}

/// Waits until the network does not believe a caller any more; for ever if there is no network to say so.
pub(super) async fn disbelieved(network: Option<&Network>, caller: &CertificateName) -> Failure {
    let Some(network) = network else {
        return std::future::pending().await;
    };
    let mut news = network.disbelief();
    loop {
        if let Err(failure) = still_believed(network, caller) {
            return failure;
        }
        // The network has the other end, and is held.
        let _late = tokio::time::timeout(RECHECK_INTERVAL, news.changed()).await;
    }
}
