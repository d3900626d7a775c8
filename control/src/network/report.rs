//! This machine's reports to the store.

use std::collections::BTreeMap;

use ployz_api::{RttRecord, WorkloadState};
use ployz_core::{MachineRecord, ObservedRecord, RECORD_VERSION, peer_rtt};
use ployz_engine::{PublicKey, RttSnapshot};
use serde_json::Map;

use crate::host::clock;
use crate::network::error::NetworkError;
use crate::network::host::Host;
use crate::network::state::Network;

/// 2 s is the measurement error; the rest is margin.
const CLOCK_SKEW_SECS: u64 = 5;

impl Network {
    /// Reports this machine's state to the store whenever a report is due. Never returns.
    pub(super) async fn report(&self, host: &impl Host) {
        let mut logged = false;
        loop {
            self.observe.notified().await;
            if let Err(error) = self.report_once(host).await {
                tracing::debug!(%error, "cannot report to the store");
            }
            let offset_secs = self.clock_offset_secs();
            let skewed = offset_secs.is_some_and(is_skewed);
            if skewed && !logged {
                tracing::warn!(offset_secs, "the clock differs from the store's: set it");
            }
            logged = skewed;
        }
    }

    async fn report_once(&self, host: &impl Host) -> Result<(), NetworkError> {
        let sessions = host.sessions().await?.len();
        let instances = host.workloads();
        let states = instances.values();
        let running = states.filter(|it| **it == WorkloadState::Running).count();
        let record = ObservedRecord {
            version: RECORD_VERSION,
            id: self.own,
            software_version: ployz_install::own_version().to_owned(),
            backend: host.backend().to_owned(),
            workloads: u32::try_from(running).unwrap_or(u32::MAX),
            instances,
            runtime: host.runtime().to_owned(),
            sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
            clock_unix_secs: Some(clock::now().unix_secs),
            management: host.management(),
            unknown: Map::new(),
        };
        self.store.observe(&record).await?;
        let measured = host.round_trips().await?;
        self.store
            .record_round_trips(&self.rtt_record(&measured))
            .await?;
        Ok(())
    }

    /// The round trips to the other machines, as a record.
    pub(crate) fn rtt_record(&self, measured: &BTreeMap<PublicKey, RttSnapshot>) -> RttRecord {
        let view = self.view();
        let row = |machine: &MachineRecord| {
            let key = PublicKey::from_base64(&machine.wireguard_key).ok()?;
            Some(peer_rtt(machine.id, measured.get(&key)?))
        };
        RttRecord {
            version: RECORD_VERSION,
            id: self.own,
            written_at: clock::now().unix_secs,
            peers: view.machines().filter_map(row).collect(),
            unknown: Map::new(),
        }
    }
}

/// Whether an offset of the clock is more than imprecision.
const fn is_skewed(offset_secs: i64) -> bool {
    offset_secs.unsigned_abs() >= CLOCK_SKEW_SECS
}
