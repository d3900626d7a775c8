//! What a network needs of the machine that it runs on.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ployz_api::{InstanceId, WorkloadState};
use ployz_core::View;
use ployz_engine::{PeerUpdate, PublicKey, RttSnapshot};

use crate::network::error::NetworkError;

/// What a network needs of the machine that it runs on.
pub(crate) trait Host {
    /// `io_uring` or `epoll`.
    fn backend(&self) -> &'static str;
    /// Changes peers, all of them or none.
    async fn change_peers(&self, peers: Vec<PeerUpdate>) -> Result<(), NetworkError>;
    /// The round trips to peers.
    async fn round_trips(&self) -> Result<BTreeMap<PublicKey, RttSnapshot>, NetworkError>;
    /// The peers with whom there is a session, and where they are.
    async fn sessions(&self) -> Result<BTreeMap<PublicKey, SocketAddr>, NetworkError>;
    /// Where its management server is reached.
    fn management(&self) -> Vec<SocketAddr>;
    /// What runs workloads there.
    fn runtime(&self) -> &'static str;
    /// How each is that it holds.
    fn workloads(&self) -> BTreeMap<InstanceId, WorkloadState>;
    /// Keeps the view for a start without the store.
    fn save(&self, view: &View) -> Result<(), NetworkError>;
    /// Counts somebody whom the store's server has refused, as `said` has it.
    fn store_refused(&self, said: &str);
}
