//! Which machines hold the store, and giving it to others.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::code::Code;
use crate::id::{MachineId, OperationId};
use crate::machine::Authority;
use crate::name::Name;
use crate::secret::Secret;

/// The machines that are to hold the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageRequest {
    /// Ids, names, or the unique beginnings of either: those that are to begin, or to cease, to hold it.
    pub machines: Vec<String>,
    /// How many are to hold it in the end; what comes out if none is said.
    pub replicas: Option<u32>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// A step on one machine, requested by the coordinator of a change of the store's holders.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StorageStep {
    /// Could you hold it?
    Preflight,
    /// Run an empty server of the next store beside whatever there is.
    Prepare(Box<NextStore>),
    /// The store is there from now on.
    Adopt(StoreLocation),
    /// The next store of this number will not be.
    Abandon {
        /// Which one.
        epoch: u32,
    },
    /// The store of this number has proven itself: take away what there is of those before it.
    Settle {
        /// Which one.
        epoch: u32,
    },
}

/// The location of a store. The one with the higher number counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreLocation {
    /// How many stores there were before it.
    pub epoch: u32,
    /// The overlay addresses and ports of those that hold it.
    pub servers: Vec<(IpAddr, u16)>,
}

/// A store that is to be, with what its holders are trusted with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextStore {
    /// The location of the next store.
    #[serde(rename = "place")]
    pub location: StoreLocation,
    /// The machine that fills it.
    pub coordinator: MachineId,
    /// The network's authority, key and all: JSON.
    pub authority: Secret,
    /// How the network hands out addresses.
    pub addresses: Value,
}

/// Whether a machine could hold the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StorageReport {
    /// The daemon's version.
    pub version: String,
    /// The port that its server would have in the overlay. The three after it are the routes' and those of a store that
    /// is not yet the one that counts.
    pub port: u16,
    /// The number of the store that it knows.
    pub epoch: u32,
}

/// A change of who holds the store: what is to be done, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoragePromotion {
    /// Under which it goes on; none if nothing has to be done, or nothing is to be.
    pub operation_id: Option<OperationId>,
    /// How many hold it in the end.
    pub replicas: u32,
    /// Those that begin to.
    pub promoted: Vec<MachineId>,
    /// Those that cease to.
    pub demoted: Vec<MachineId>,
    /// Those that are named and stay what they are.
    pub unchanged: Vec<MachineId>,
    /// Those that could not be made what they were to be.
    pub failed: Vec<FailedPromotion>,
    /// The steps, in words.
    pub plan: Vec<String>,
}

/// A machine that is not what it was to be, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedPromotion {
    /// Which one.
    pub machine_id: MachineId,
    /// Which kind of failure.
    pub cause: Code,
    /// The same in words.
    pub message: String,
}

/// The holders of the store and their health.
#[derive(Debug, Serialize, Deserialize)]
pub struct StorageList {
    /// The number of replicas of the store.
    pub replicas: u32,
    /// By name.
    pub rows: Vec<StorageRow>,
}

/// A machine and its part in the store.
#[derive(Debug, Serialize, Deserialize)]
pub struct StorageRow {
    /// Which one.
    pub id: MachineId,
    /// The name of the machine.
    pub name: Name,
    /// `storage` or `compute`.
    pub role: Authority,
    /// Whether it decides on what is written to the records of machines.
    pub leader: bool,
    /// Whether it has everything; none if it holds nothing.
    pub current: Option<bool>,
    /// How many writes it is behind in the stream where that is most.
    pub lag: Option<u64>,
    /// The size of the streams that it holds, in bytes.
    pub disk: Option<u64>,
    /// How many streams it holds.
    pub streams: Option<u32>,
}
