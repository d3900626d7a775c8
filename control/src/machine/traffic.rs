//! The traffic with each peer, and with the machine behind it.

use std::collections::BTreeMap;
use std::time::Instant;

use ployz_api::Failure;
use ployz_core::MachineRecord;
use ployz_engine::PublicKey;

use crate::machine::context::Machine;
use crate::overlay::PeerTraffic;

/// The traffic with each peer.
pub(crate) type Traffic = BTreeMap<PublicKey, PeerTraffic>;

impl Machine {
    /// The traffic with each peer up to now.
    ///
    /// # Errors
    /// `INTERNAL` if the data plane does not answer.
    pub(crate) async fn traffic(&self, now: Instant) -> Result<Traffic, Failure> {
        Ok(self.overlay.traffic(now).await?)
    }
}

/// A machine's part of the traffic.
pub(crate) fn peer<'a>(traffic: &'a Traffic, machine: &MachineRecord) -> Option<&'a PeerTraffic> {
    traffic.get(&PublicKey::from_base64(&machine.wireguard_key).ok()?)
}
