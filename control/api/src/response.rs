//! The answers of a daemon, which `--json` prints as well.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::certificate::Role;
use crate::code::Code;
use crate::credential::Context;
use crate::doctor::{Doctor, PairReport};
use crate::event::{Event, EventList};
use crate::id::{CredentialId, InviteId, MachineId, NetworkId};
use crate::installation::Installation;
use crate::machine::{
    Authority, CredentialStatus, InviteStatus, NetworkState, Posture, RegionRole,
};
use crate::migration::{MigrateApply, MigratePreview, VolumeBytes, VolumeEntries};
use crate::name::Name;
use crate::operation::{OperationList, OperationRow};
use crate::redeemed::{Redeemed, Renewed};
use crate::removal::{MachineRemove, MachineRetired};
use crate::rtt::{MachineRtt, RttRecord};
use crate::secret::Secret;
use crate::storage::{StorageList, StoragePromotion, StorageReport};
use crate::update::{MachineHealth, MachineUpdate, ReleaseFetched};
use crate::workload::{WorkloadInspect, WorkloadList, WorkloadLogs, WorkloadName, WorkloadRow};

/// How a request ended.
pub type Outcome = Result<Success, Failure>;

/// A request that was carried out.
#[derive(Debug)]
pub struct Success {
    /// A sentence about it; empty when the payload says it all.
    pub message: String,
    /// The result.
    pub payload: Option<Payload>,
}

impl From<Payload> for Success {
    fn from(payload: Payload) -> Self {
        Self {
            message: String::new(),
            payload: Some(payload),
        }
    }
}

/// A request that was refused or failed, and changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which kind.
    pub code: Code,
    /// The cause, in a sentence.
    pub message: String,
    /// The command that mends it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// With the command that mends it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// An [`Outcome`] as one document.
#[derive(Debug, Serialize, Deserialize)]
pub struct Response {
    /// Whether it was done.
    pub ok: bool,
    /// `OK`, or why not.
    pub code: Code,
    /// A sentence about the result.
    pub message: String,
    /// The command that mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
}

impl From<Outcome> for Response {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(Success { message, payload }) => Self {
                ok: true,
                code: Code::Ok,
                message,
                hint: None,
                payload,
            },
            Err(Failure {
                code,
                message,
                hint,
            }) => Self {
                ok: false,
                code,
                message,
                hint,
                payload: None,
            },
        }
    }
}

impl From<Response> for Outcome {
    fn from(response: Response) -> Self {
        let Response {
            ok,
            code,
            message,
            hint,
            payload,
        } = response;
        if ok {
            Ok(Success { message, payload })
        } else {
            Err(Failure {
                code,
                message,
                hint,
            })
        }
    }
}

/// The payload of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is named as its content is")]
pub enum Payload {
    Status(Box<Status>),
    MeshInit(Box<MeshInit>),
    MeshList(MeshList),
    MeshStatus(Box<MeshStatus>),
    MeshReady(MeshReady),
    MeshSelfRecord(MachineRecordShown),
    MachineRecord(MachineRecordShown),
    MachineList(MachineList),
    MachineRtt(MachineRtt),
    MachineInspect(Box<MachineInspect>),
    MachineLifecycle(MachineLifecycle),
    MachineRemove(MachineRemove),
    MachineRetired(MachineRetired),
    Workload(Box<WorkloadRow>),
    WorkloadList(WorkloadList),
    WorkloadInspect(Box<WorkloadInspect>),
    WorkloadLogs(WorkloadLogs),
    MachineUpdate(Box<MachineUpdate>),
    MachineHealth(Box<MachineHealth>),
    ReleaseFetched(ReleaseFetched),
    StoragePromotion(Box<StoragePromotion>),
    StorageReport(StorageReport),
    StorageList(StorageList),
    MigratePreview(MigratePreview),
    MigrateApply(MigrateApply),
    VolumeEntries(VolumeEntries),
    VolumeBytes(VolumeBytes),
    Invite(Invite),
    InviteList(InviteList),
    MachineJoin(MachineJoin),
    Redeemed(Box<Redeemed>),
    Renewed(Renewed),
    Credential(Box<NewCredential>),
    CredentialList(CredentialList),
    Doctor(Doctor),
    PairReport(Box<PairReport>),
    RttReport(Box<RttRecord>),
    EventList(EventList),
    Event(Box<Event>),
    OperationList(OperationList),
    Operation(Box<OperationRow>),
}

/// A daemon and its machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's.
    pub version: String,
    /// The machine's id.
    pub id: MachineId,
    /// The machine's name.
    pub name: Name,
    /// The network that it is in.
    pub network: Option<Name>,
    /// Whether it takes part in it.
    pub network_state: Option<NetworkState>,
    /// That network's id.
    pub network_id: Option<NetworkId>,
    /// The lifecycle that the operator wants.
    pub lifecycle: Option<Posture>,
    /// Whether it was removed from that network without being asked.
    #[serde(default)]
    pub removed: bool,
    /// Its address in the overlay.
    pub overlay_ip: Option<Ipv4Addr>,
    /// And its IPv6 one.
    pub overlay_ip6: Option<Ipv6Addr>,
    /// The runtime for workloads: `docker` or `host`.
    pub runtime: String,
    /// How the daemon came here.
    #[serde(default)]
    pub installation: Installation,
    /// How packets travel.
    pub data_plane: DataPlane,
    /// Whether it holds the store.
    pub storage: StorageState,
    /// How current its view of the network is.
    pub control: Control,
    /// Connections and requests that were refused since the daemon started, by cause: a code, or what there was no room
    /// for.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// The key exchanges of TLS sessions since the daemon started.
    #[serde(default)]
    pub key_exchanges: KeyExchanges,
}

/// Key exchanges that were completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyExchanges {
    /// By X25519 and ML-KEM: what was recorded of these sessions stays closed to a quantum computer.
    pub post_quantum: u64,
    /// By X25519 alone, since the other side has nothing else.
    pub classical: u64,
}

/// A data plane: what the shard says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct DataPlane {
    /// `io_uring` or `epoll`.
    pub backend: String,
    /// The interface.
    pub interface: String,
    /// Everything else, by name.
    pub details: BTreeMap<String, String>,
}

/// A machine's part in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum StorageState {
    /// None of it is here.
    None,
    /// `nats-server` runs here.
    Running {
        /// Its process.
        pid: u32,
        /// The version that it reported.
        version: String,
    },
    /// The server should run, and does not.
    Down,
}

/// A machine's link to the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Control {
    /// Whether the store answers.
    pub connected: bool,
    /// Since when the view has not been confirmed.
    pub view_age_secs: Option<u64>,
    /// Machines in view.
    pub machines: usize,
    /// How far this machine's clock is ahead of the store's, in seconds, give or take two.
    #[serde(default)]
    pub clock_offset_secs: Option<i64>,
}

/// A network was founded, or had been.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the command line's contract")]
pub struct MeshInit {
    pub network: Name,
    pub network_id: NetworkId,
    pub id: MachineId,
    pub name: Name,
    pub overlay_ip: Ipv4Addr,
    pub overlay_ip6: Ipv6Addr,
    pub subnet: Ipv4Net,
    /// The first invite; none when the network had been there before.
    pub invite: Option<Invite>,
}

/// The networks that a machine knows of: one or none.
#[derive(Debug, Serialize, Deserialize)]
pub struct MeshList {
    /// By name.
    pub rows: Vec<MeshRow>,
}

/// A network.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the command line's contract")]
pub struct MeshRow {
    pub name: Name,
    pub id: NetworkId,
    pub state: NetworkState,
}

/// A network, as seen from one machine.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the command line's contract")]
pub struct MeshStatus {
    pub network: Name,
    pub network_id: NetworkId,
    pub state: NetworkState,
    pub overlay_ip: Option<Ipv4Addr>,
    pub overlay_ip6: Option<Ipv6Addr>,
    pub lifecycle: Option<Posture>,
    pub storage: StorageState,
    pub control: Control,
}

/// Whether everything works.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the command line's contract")]
pub struct MeshReady {
    pub ready: bool,
    pub network: Name,
    pub view_age_secs: u64,
}

/// A machine's record in `machines`.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "its fields are in docs/protocol.md")]
pub struct MachineRecordShown {
    pub record: Value,
}

/// All machines in view.
#[derive(Debug, Serialize, Deserialize)]
pub struct MachineList {
    /// When the store last confirmed it.
    pub view_age_secs: u64,
    /// Whether that is longer ago than it should be.
    pub stale: bool,
    /// By name.
    pub rows: Vec<MachineRow>,
}

/// A machine.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the command line's contract")]
pub struct MachineRow {
    pub id: MachineId,
    pub name: Name,
    pub lifecycle: Posture,
    pub authority: Authority,
    pub region: String,
    pub region_role: RegionRole,
    pub availability_zone: Option<String>,
    pub overlay_ip: Ipv4Addr,
    pub overlay_ip6: Ipv6Addr,
    pub subnet: Option<Ipv4Net>,
    pub created_at: u64,
    pub version: Option<String>,
    pub workloads: u32,
    pub reachable: bool,
    pub handshake_age_secs: Option<u64>,
    pub observed_age_secs: Option<u64>,
    #[serde(default)]
    pub clock_offset_secs: Option<i64>,
    pub labels: BTreeMap<String, String>,
}

/// Everything known about a machine: desired and observed apart.
#[derive(Debug, Serialize, Deserialize)]
pub struct MachineInspect {
    /// As in the list.
    pub machine: MachineRow,
    /// Its record in `machines`.
    pub desired: Value,
    /// Its record in `observed`.
    pub observed: Option<Value>,
    /// The endpoint that this daemon last heard from it.
    pub endpoint: Option<SocketAddr>,
    /// Bytes that this daemon got from it.
    pub rx_bytes: Option<u64>,
    /// Bytes that this daemon sent to it.
    pub tx_bytes: Option<u64>,
}

/// A change of a machine's lifecycle.
#[derive(Debug, Serialize, Deserialize)]
pub struct MachineLifecycle {
    /// Which one.
    pub id: MachineId,
    /// The former lifecycle; the same as `to` if nothing changed.
    pub from: Posture,
    /// The present lifecycle.
    pub to: Posture,
    /// How many workloads it holds.
    pub workloads: u32,
    /// Which ones.
    pub holds: Vec<WorkloadName>,
}

/// A new invite.
#[derive(Debug, Serialize, Deserialize)]
pub struct Invite {
    /// Its id.
    pub invite_id: InviteId,
    /// The token for the joining machine; it cannot be shown again.
    pub token: Secret,
    /// Seconds since 1970.
    pub expires_at: u64,
}

/// Invites.
#[derive(Debug, Serialize, Deserialize)]
pub struct InviteList {
    /// By age.
    pub invites: Vec<InviteRow>,
}

/// An invite.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the command line's contract")]
pub struct InviteRow {
    pub invite_id: InviteId,
    pub status: InviteStatus,
    pub created_at: u64,
    pub expires_at: u64,
    pub consumed_by: Option<MachineId>,
}

/// This machine has joined, or had.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the command line's contract")]
pub struct MachineJoin {
    pub id: MachineId,
    pub name: Name,
    pub network: Name,
    pub overlay_ip: Ipv4Addr,
    pub status: String,
}

/// A new credential.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewCredential {
    /// Its id, which is also the subject of its certificate.
    pub credential_id: CredentialId,
    /// The role of the holder.
    pub role: Role,
    /// Seconds since 1970; never if there is none.
    pub expires_at: Option<u64>,
    /// The context for its holder; it cannot be shown again.
    pub context: Context,
}

/// Credentials.
#[derive(Debug, Serialize, Deserialize)]
pub struct CredentialList {
    /// By age.
    pub credentials: Vec<CredentialRow>,
}

/// A credential.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as the flags of `credential create` are")]
pub struct CredentialRow {
    pub credential_id: CredentialId,
    pub name: Option<Name>,
    pub role: Role,
    pub status: CredentialStatus,
    pub created_at: u64,
    pub expires_at: Option<u64>,
}
