//! This machine as the host of its network.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ployz_api::{InstanceId, WorkloadState};
use ployz_core::View;
use ployz_engine::{PeerUpdate, PublicKey, RttSnapshot};

use crate::host::clock;
use crate::host::local_addresses;
use crate::host::membership::VIEW_FILE;
use crate::machine::Machine;
use crate::network::{Contacts, Host, NetworkError, is_session};
use crate::overlay::PeerTraffic;

impl Host for Machine {
    fn backend(&self) -> &'static str {
        self.overlay.backend()
    }

    async fn change_peers(&self, peers: Vec<PeerUpdate>) -> Result<(), NetworkError> {
        Ok(self.overlay.change_peers(peers).await?)
    }

    async fn contacts(&self) -> Result<Contacts, NetworkError> {
        let traffic = self.overlay.traffic(clock::now().instant).await?;
        let sessions = traffic
            .iter()
            .filter(|(_, peer)| is_session(peer.handshake_age_secs));
        let taken = |(key, peer): (&PublicKey, &PeerTraffic)| Some((*key, peer.newest_initiation?));
        Ok(Contacts {
            sessions: sessions
                .filter_map(|(key, peer)| Some((*key, peer.endpoint?)))
                .collect(),
            initiations: traffic.iter().filter_map(taken).collect(),
        })
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

    async fn round_trips(&self) -> Result<BTreeMap<PublicKey, RttSnapshot>, NetworkError> {
        let peers = self.overlay.snapshot().await?.peers;
        let measured = peers
            .into_iter()
            .filter_map(|peer| Some((peer.public_key, peer.rtt?)));
        Ok(measured.collect())
    }

    fn save(&self, view: &View) -> Result<(), NetworkError> {
        Ok(self.files.rewrite(VIEW_FILE, &view.saved())?)
    }

    fn store_refused(&self, said: &str) {
        let now = clock::now().instant;
        self.refusals.note("store", "nats-server", said, now);
    }
}
