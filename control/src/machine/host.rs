//! What the network is told of the machine that it runs on.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ployz_api::{InstanceId, WorkloadState};
use ployz_core::View;
use ployz_engine::{PeerUpdate, PublicKey, RttSnapshot};

use crate::host::clock;
use crate::host::local_addresses;
use crate::host::membership::VIEW_FILE;
use crate::machine::Machine;
use crate::network::{Host, is_session};

impl Host for Machine {
    fn backend(&self) -> &'static str {
        self.overlay.backend()
    }

    async fn change_peers(&self, peers: Vec<PeerUpdate>) -> anyhow::Result<()> {
        Ok(self.overlay.change_peers(peers).await?)
    }

    async fn sessions(&self) -> anyhow::Result<BTreeMap<PublicKey, SocketAddr>> {
        let traffic = self.overlay.traffic(clock::now().instant).await?;
        let sessions = traffic
            .into_iter()
            .filter(|(_, peer)| is_session(peer.handshake_age_secs));
        Ok(sessions
            .filter_map(|(key, peer)| Some((key, peer.endpoint?)))
            .collect())
    }

    fn runtime(&self) -> &'static str {
        self.workloads.runtime()
    }

    fn workloads(&self) -> BTreeMap<InstanceId, WorkloadState> {
        self.workloads.states()
    }

    fn management(&self) -> Vec<SocketAddr> {
        local_addresses::endpoints(self.config.listen, &self.config.interface)
    }

    async fn round_trips(&self) -> anyhow::Result<BTreeMap<PublicKey, RttSnapshot>> {
        let peers = self.overlay.snapshot().await?.peers;
        let measured = peers
            .into_iter()
            .filter_map(|peer| Some((peer.public_key, peer.rtt?)));
        Ok(measured.collect())
    }

    fn save(&self, view: &View) -> anyhow::Result<()> {
        Ok(self.files.rewrite(VIEW_FILE, &view.saved())?)
    }

    fn store_refused(&self, said: &str) {
        let now = clock::now().instant;
        self.refusals.note("store", "nats-server", said, now);
    }
}
