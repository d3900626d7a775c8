//! The view: this machine's knowledge of the network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ployz_api::{Authority, CertificateName, Code, CredentialId, Failure, MachineId, Role};
use ployz_engine::{PeerUpdate, PublicKey, Tai64n};
use serde::{Deserialize, Serialize};

use crate::initiations::InitiationTime;
use crate::machines::{MachineRecord, ObservedRecord};
use crate::peers::{changes, plan};

/// The subject of root of a machine that holds the store is this and the machine's id.
pub const ROOT_PREFIX: &str = "root-";

/// The records that have been seen, by machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub(crate) machines: BTreeMap<MachineId, (MachineRecord, u64)>,
    pub(crate) observed: BTreeMap<MachineId, (ObservedRecord, u64)>,
    /// The credentials that are revoked.
    pub(crate) revoked: BTreeSet<CredentialId>,
    /// The endpoints of machines that were last heard from elsewhere than their records say.
    pub(crate) roamed: BTreeMap<MachineId, SocketAddr>,
    /// The newest initiation that the data plane took from each machine.
    pub(crate) initiations: BTreeMap<MachineId, InitiationTime>,
    /// When the store last said that this is how it is; seconds since 1970.
    pub(crate) confirmed_at: u64,
    /// The newest revision of a machine's record, and when it was heard of; seconds since 1970.
    pub(crate) newest: (u64, u64),
}

/// A view as it lies on disk, for a start without the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedView {
    /// When the store last confirmed it; seconds since 1970.
    pub confirmed_at: u64,
    /// All machines.
    pub machines: Vec<MachineRecord>,
    /// Credentials that were taken back.
    #[serde(default)]
    pub revoked: BTreeSet<CredentialId>,
    /// The endpoints of machines that were last heard from elsewhere than their records have first.
    #[serde(default)]
    pub roamed: BTreeMap<MachineId, SocketAddr>,
    /// The newest initiation that was taken from each machine.
    #[serde(default)]
    pub initiations: BTreeMap<MachineId, InitiationTime>,
}

impl SavedView {
    /// The peers of one of the machines, each to be looked for where it was last, and no initiation of theirs to be
    /// taken again.
    pub fn peers(&self, own: MachineId) -> Vec<PeerUpdate> {
        let plan = plan(own, self.machines.iter());
        let mut updates = changes(&BTreeMap::new(), &plan);
        let ids = self.machines.iter().map(|it| Some((it.key()?, it.id)));
        let ids: BTreeMap<PublicKey, MachineId> = ids.flatten().collect();
        for update in &mut updates {
            let Some(id) = ids.get(&update.public_key) else {
                continue;
            };
            update.endpoint = self.roamed.get(id).copied().or(update.endpoint);
            update.newest_initiation = self.initiations.get(id).map(|it| it.0);
        }
        updates
    }
}

/// A machine that was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// Nothing begins like that.
    #[error("there is no machine '{0}'")]
    NotFound(String),
    /// Several do.
    #[error("'{wanted}' is ambiguous: it could be {candidates}")]
    Ambiguous {
        /// The text that was asked for.
        wanted: String,
        /// Their names.
        candidates: String,
    },
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        let code = match error {
            SelectError::NotFound(_) => Code::MachineNotFound,
            SelectError::Ambiguous { .. } => Code::MachineAmbiguous,
        };
        Self::new(code, error.to_string()).hint("ployzctl machine ls")
    }
}

impl View {
    /// All machines, by id.
    pub fn machines(&self) -> impl Iterator<Item = &MachineRecord> {
        self.machines.values().map(|(record, _)| record)
    }

    /// The record of a machine.
    pub fn machine(&self, id: MachineId) -> Option<&MachineRecord> {
        self.machines.get(&id).map(|(record, _)| record)
    }

    /// The latest observed state of a machine, and its time of receipt by the store, in seconds since 1970.
    pub fn observed(&self, id: MachineId) -> Option<(&ObservedRecord, u64)> {
        self.observed.get(&id).map(|(record, at)| (record, *at))
    }

    /// How far a machine's clock is ahead of the store's, in seconds, as of its last report. What the report took on
    /// its way and the rest of a second make it wrong by two at most.
    pub fn clock_offset_secs(&self, id: MachineId) -> Option<i64> {
        let (record, at) = self.observed(id)?;
        let clock = i64::try_from(record.clock_unix_secs?).ok()?;
        clock.checked_sub(i64::try_from(at).ok()?)
    }

    /// Whether a certificate still says who its holder is: a person's until it is revoked, that of root of a machine
    /// while the machine is in the network, and a machine's while it is there with this key. `key` is the SHA-256 of
    /// the certificate's public key.
    pub fn believes(&self, holder: &CertificateName, key: &str) -> bool {
        match holder.role {
            Role::Admin | Role::Operator | Role::Reader => {
                if let Some(of_root) = self.root_of(holder) {
                    return of_root.is_some();
                }
                let id = holder.subject.parse::<CredentialId>();
                !id.is_ok_and(|id| self.revoked.contains(&id))
            }
            Role::Machine => {
                let id = holder.subject.parse().ok();
                let machine = id.and_then(|id| self.machine(id));
                machine.is_some_and(|it| it.certificate_key.as_deref().is_none_or(|own| own == key))
            }
            Role::Stranger => true,
        }
    }

    /// The machine that this is root of, if the name is one of root: certified where the network's authority is.
    pub fn root_of(&self, holder: &CertificateName) -> Option<Option<&MachineRecord>> {
        let id = holder.subject.strip_prefix(ROOT_PREFIX)?;
        Some(id.parse().ok().and_then(|id| self.machine(id)))
    }

    /// A machine that holds the store: the first by id of those that are there, or of all if none is.
    pub fn coordinator(&self, is_there: impl Fn(&MachineRecord) -> bool) -> Option<&MachineRecord> {
        let holders = || {
            self.machines()
                .filter(|it| it.authority == Authority::Storage)
        };
        let there = holders().find(|machine| is_there(machine));
        there.or_else(|| holders().next())
    }

    /// The servers of the store by the records: the overlay addresses and ports of its holders.
    pub fn store_servers(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        let holders = self
            .machines()
            .filter(|it| it.authority == Authority::Storage);
        holders.filter_map(|it| Some((it.overlay_ip.into(), it.store_port?)))
    }

    /// Notes where the machines are with whom there is a session; true if that is news.
    pub(crate) fn record_sessions(&mut self, sessions: &BTreeMap<PublicKey, SocketAddr>) -> bool {
        let before = self.roamed.clone();
        self.roamed.retain(|id, _| self.machines.contains_key(id));
        for (machine, _) in self.machines.values() {
            let key = PublicKey::from_base64(&machine.wireguard_key).ok();
            let Some(endpoint) = key.and_then(|key| sessions.get(&key)) else {
                continue;
            };
            if machine.endpoints.first() == Some(endpoint) {
                self.roamed.remove(&machine.id);
            } else {
                self.roamed.insert(machine.id, *endpoint);
            }
        }
        self.roamed != before
    }

    /// Notes the newest initiations that were taken; true if there are new ones.
    pub(crate) fn record_initiations(&mut self, taken: &BTreeMap<PublicKey, Tai64n>) -> bool {
        let before = self.initiations.clone();
        self.initiations
            .retain(|id, _| self.machines.contains_key(id));
        let machines = self.machines.values();
        let newest = machines.filter_map(|(machine, _)| {
            let time = taken.get(&machine.key()?)?;
            Some((machine.id, InitiationTime(*time)))
        });
        self.initiations.extend(newest);
        self.initiations != before
    }

    /// How long ago the store confirmed the view.
    pub const fn age_secs(&self, unix_secs: u64) -> u64 {
        unix_secs.saturating_sub(self.confirmed_at)
    }

    /// As it goes to disk.
    pub fn saved(&self) -> SavedView {
        SavedView {
            confirmed_at: self.confirmed_at,
            machines: self.machines().cloned().collect(),
            revoked: self.revoked.clone(),
            roamed: self.roamed.clone(),
            initiations: self.initiations.clone(),
        }
    }

    /// The newest revision of a machine's record.
    pub const fn revision(&self) -> u64 {
        self.newest.0
    }

    /// How long ago that was heard of.
    pub const fn revision_age_secs(&self, unix_secs: u64) -> u64 {
        unix_secs.saturating_sub(self.newest.1)
    }

    /// Finds the one machine that an operator means: by its id or name, or by the unique beginning of either.
    ///
    /// # Errors
    /// [`SelectError`].
    pub fn select(&self, wanted: &str) -> Result<&MachineRecord, SelectError> {
        let lower = wanted.to_lowercase();
        let id = |machine: &MachineRecord| machine.id.to_string().to_lowercase();
        let exact =
            |machine: &&MachineRecord| id(machine) == lower || machine.name.as_str() == wanted;
        if let Some(machine) = self.machines().find(exact) {
            return Ok(machine);
        }
        let begins = |machine: &&MachineRecord| {
            id(machine).starts_with(&lower) || machine.name.as_str().starts_with(wanted)
        };
        let candidates: Vec<&MachineRecord> = self.machines().filter(begins).collect();
        match candidates[..] {
            _ if wanted.is_empty() => Err(SelectError::NotFound(String::new())),
            [] => Err(SelectError::NotFound(wanted.to_owned())),
            [machine] => Ok(machine),
            [..] => Err(SelectError::Ambiguous {
                wanted: wanted.to_owned(),
                candidates: candidates
                    .iter()
                    .map(|machine| machine.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }
}
