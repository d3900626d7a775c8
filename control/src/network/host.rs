//! The interface between a network and the machine that it runs on.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ployz_api::{InstanceId, WorkloadState};
use ployz_core::View;
use ployz_engine::{PeerUpdate, PublicKey, RttSnapshot, Tai64n};

use crate::network::error::NetworkError;

/// The data plane's knowledge of its peers.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    /// The peers that have a session, and their endpoints.
    pub(crate) sessions: BTreeMap<PublicKey, SocketAddr>,
    /// The timestamp of the newest initiation that was taken from each peer.
    pub(crate) initiations: BTreeMap<PublicKey, Tai64n>,
}

/// The machine that a network runs on.
pub(crate) trait Host {
    /// `io_uring` or `epoll`.
    fn backend(&self) -> &'static str;
    /// Changes peers, all of them or none.
    async fn change_peers(&self, peers: Vec<PeerUpdate>) -> Result<(), NetworkError>;
    /// The round trips to peers.
    async fn round_trips(&self) -> Result<BTreeMap<PublicKey, RttSnapshot>, NetworkError>;
    /// The peers that have a session, and the newest initiations that were taken.
    async fn contacts(&self) -> Result<Contacts, NetworkError>;
    /// The peers that have a session, and their endpoints.
    async fn sessions(&self) -> Result<BTreeMap<PublicKey, SocketAddr>, NetworkError> {
        Ok(self.contacts().await?.sessions)
    }
    /// The endpoints of its management server.
    fn management(&self) -> Vec<SocketAddr>;
    /// The runtime of its workloads.
    fn runtime(&self) -> &'static str;
    /// The state of each workload on it.
    fn workloads(&self) -> BTreeMap<InstanceId, WorkloadState>;
    /// Saves the view for a start without the store.
    fn save(&self, view: &View) -> Result<(), NetworkError>;
    /// Counts a client that the store's server has refused, as its log line says.
    fn store_refused(&self, said: &str);
}
