//! The requests of the management protocol.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::certificate::Role;
use crate::code::Code;
use crate::id::{CredentialId, InviteId, MachineId, NetworkId, OperationId};
use crate::label::{LabelKey, LabelValue};
use crate::migration::{MigrateRequest, VolumeRequest};
use crate::name::Name;
use crate::secret::Secret;
use crate::storage::{StorageRequest, StorageStep};
use crate::text;
use crate::update::{UpdateRequest, UpdateStep};
use crate::workload::{DeployRequest, WorkloadName};

/// The default lifetime of an invite.
pub const TTL_SECS_DEFAULT: u64 = 600;

/// A week: an invite that is older is more likely to be found than to be used.
pub const TTL_SECS_MAX: u64 = 7 * 24 * 3600;

/// A request; a stream carries one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Report the daemon's version and state.
    Status,
    /// Found a network here.
    MeshInit(MeshInitRequest),
    /// Draw a network up here, and do not start it yet.
    MeshCreate(MeshInitRequest),
    /// Take part in the network again, or for the first time.
    MeshStart,
    /// Take part no more, until it is started again.
    MeshStop {
        /// Whatever the machine is there for.
        force: bool,
    },
    /// Forget the network for good.
    MeshDestroy {
        /// Only if it is called that.
        name: Option<Name>,
        /// Whatever others think: take away what is here.
        force: bool,
    },
    /// Which machines are there?
    MachineList,
    /// How far are they from one another? There is an answer for each machine that measures.
    MachineRtt {
        /// Only pairs in which one of these takes part: an id, a name, or the unique beginning of either. All if it is
        /// empty.
        machines: Vec<String>,
        /// Only what so many new round trips say; a few are added to those that are known if it is not said.
        count: Option<u16>,
    },
    /// Everything about one of them.
    MachineInspect {
        /// An id, a name, or the unique beginning of either.
        machine: String,
    },
    /// Call a machine something else.
    MachineRename {
        /// An id, a name, or the unique beginning of either.
        machine: String,
        /// The name.
        name: Name,
    },
    /// Change a machine's labels.
    MachineLabel {
        /// An id, a name, or the unique beginning of either.
        machine: String,
        /// A value to set, or none to take the label away.
        labels: BTreeMap<LabelKey, Option<LabelValue>>,
    },
    /// Let workloads be placed on a machine.
    MachineActivate {
        /// An id, a name, or the unique beginning of either.
        machine: String,
    },
    /// Place none on it any more; those that it has stay.
    MachineDrain {
        /// An id, a name, or the unique beginning of either.
        machine: String,
    },
    /// Park it.
    MachineStandby {
        /// An id, a name, or the unique beginning of either.
        machine: String,
        /// Although it holds workloads.
        force: bool,
    },
    /// Take one of them out of the network.
    MachineRemove {
        /// An id, a name, or the unique beginning of either.
        machine: String,
        /// Without asking the machine itself to clean up.
        force: bool,
    },
    /// Get out of the network, and take down what there is of it and of the daemon. Only who holds the store may ask
    /// that of another machine, which it is about to remove.
    MachineRetire {
        /// The network's decision to remove this very machine, signed by its authority: ECDSA over P-256 with SHA-256,
        /// ASN.1, in hexadecimal digits. Earlier versions do not send one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decision: Option<String>,
    },
    /// Place a workload on a machine.
    WorkloadDeploy(DeployRequest),
    /// Which workloads do machines hold?
    WorkloadList,
    /// Everything about one of them.
    WorkloadInspect {
        /// Which one.
        workload: WorkloadName,
    },
    /// From the machine that runs it: what has it written?
    WorkloadLogs {
        /// Which one.
        workload: WorkloadName,
        /// How many lines of the last ones.
        lines: u32,
    },
    /// Stop a workload, and forget it.
    WorkloadRemove {
        /// Which one.
        workload: WorkloadName,
    },
    /// Bring machines to another version.
    MachineUpdate(UpdateRequest),
    /// From the machine that coordinates an update: do this.
    UpdateStep(UpdateStep),
    /// Have more machines hold the store, or others.
    StoragePromote(StorageRequest),
    /// Have fewer machines hold it.
    StorageDemote(StorageRequest),
    /// List the holders of the store and their health.
    StorageList,
    /// From the machine that coordinates such a change: do this.
    StorageStep(StorageStep),
    /// How would a workload be moved?
    MigratePreview(MigrateRequest),
    /// Move a workload to another machine.
    MigrateApply(MigrateRequest),
    /// From the machine that a workload is moved to: a piece of a volume.
    Volume(VolumeRequest),
    /// Make an invite.
    InviteCreate(InviteRequest),
    /// Which invites are there?
    InviteList {
        /// Those that cannot be used any more as well.
        all: bool,
    },
    /// Take an invite back.
    InviteRevoke {
        /// Which one.
        invite_id: InviteId,
    },
    /// Join the network that an invite is for.
    InviteImport {
        /// The token that `invite create` printed.
        token: Secret,
    },
    /// From the joining daemon to a coordinator: let me in.
    InviteRedeem(RedeemRequest),
    /// Create a credential.
    CredentialCreate(CredentialRequest),
    /// List the credentials.
    CredentialList,
    /// Believe a certificate no more.
    CredentialRevoke {
        /// Which one.
        credential_id: CredentialId,
    },
    /// Diagnose this machine, or a pair of machines.
    Doctor {
        /// The other machine, by its id, its name, or the unique beginning of either.
        machine: Option<String>,
    },
    /// Report on a machine, for the diagnosis of a pair.
    PairReport {
        /// Which one.
        machine: MachineId,
    },
    /// From machine to machine: how far are these from you?
    RttReport {
        /// Which ones.
        peers: Vec<MachineId>,
        /// As in [`Self::MachineRtt`].
        count: Option<u16>,
    },
    /// List events.
    Events {
        /// Go on saying so, each event in a frame of its own, after the list of those that were.
        follow: bool,
        /// How many of those that were.
        limit: u32,
        /// Only those of one machine: an id, a name, or the unique beginning of either.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        machine: Option<String>,
    },
    /// From a machine: sign its certificate anew, for the key that the connection was made with.
    CertificateRenew,
    /// Which long work is there?
    OperationList,
    /// How far is one of them?
    OperationGet {
        /// Which one.
        operation_id: OperationId,
    },
    /// How far is a client that makes machines out of hosts?
    Provision(ProvisionReport),
    /// Pass what follows on this stream on to another machine.
    Relay {
        /// Which one.
        destination: Destination,
    },
    /// From machine to machine: the stream carries the TLS session of another client from here on.
    Relayed,
}

/// The destination of a relayed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// A machine, by its id, its name, or the unique beginning of either.
    Machine(String),
    /// A machine that holds the store.
    Coordinator,
}

/// The terms of a new credential.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialRequest {
    /// The role of the holder.
    pub role: Role,
    /// For how long; for ever if it is not said.
    pub ttl_secs: Option<u64>,
    /// The name of the holder, for the list.
    pub name: Option<Name>,
}

/// How to found a network.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshInitRequest {
    /// The name.
    pub name: Name,
    /// The range that subnets come from.
    pub cluster_cidr: Option<Ipv4Net>,
    /// How large each is.
    pub subnet_prefix_len: Option<u8>,
    /// WireGuard's UDP port on this machine; what the daemon was started with if none is given.
    pub wg_port: Option<u16>,
    /// The endpoints at which others reach this machine's WireGuard; its own addresses if none is given.
    pub endpoints: Vec<SocketAddr>,
}

/// The terms of a new invite.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// How long it can be used.
    pub ttl_secs: u64,
    /// The name of the machine that uses it.
    pub name: Option<Name>,
    /// Its region, whatever it says itself.
    #[serde(default)]
    pub region: Option<Name>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<LabelKey, LabelValue>,
    /// Whether it is on standby when it has joined, and not active.
    #[serde(default)]
    pub standby: bool,
}

impl InviteRequest {
    /// An invite that says nothing of the machine that will use it.
    pub const fn lasting(ttl_secs: u64) -> Self {
        Self {
            ttl_secs,
            name: None,
            region: None,
            labels: BTreeMap::new(),
            standby: false,
        }
    }
}

/// A report of a client that provisions hosts: the client does the work, and the store records its progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ProvisionReport {
    /// The work begins, with these hosts.
    Begin {
        /// The network that they are for; it has to be this one.
        network: Name,
        /// The hosts as ssh takes them.
        targets: Vec<String>,
    },
    /// The work continues; a client that is silent for [`LEASE_SECS`](crate::LEASE_SECS) counts as dead.
    Alive {
        /// The operation.
        operation_id: OperationId,
    },
    /// The next stage of one host begins.
    Stage {
        /// The operation.
        operation_id: OperationId,
        /// The host.
        target: String,
        /// The name of the stage.
        stage: String,
    },
    /// The work on a host has ended.
    Ended {
        /// The operation.
        operation_id: OperationId,
        /// The host.
        target: String,
        /// Why it could not be done; none if it was.
        cause: Option<String>,
    },
    /// All of them are.
    End {
        /// The operation.
        operation_id: OperationId,
        /// `OK`, or the code of the first that could not be done.
        code: Code,
        /// The same in words.
        message: String,
    },
}

/// The data that a machine shows to be admitted. No secret key is among it: those never leave their machine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedeemRequest {
    /// Which invite.
    pub invite_id: InviteId,
    /// Its secret, in hexadecimal digits.
    pub secret: Secret,
    /// The machine that wants to join.
    pub machine_id: MachineId,
    /// The name that it gives itself.
    pub name: Name,
    /// Its region.
    #[serde(deserialize_with = "text::parse::<64, _, _>")]
    pub region: String,
    /// Its WireGuard key, in base64.
    pub wireguard_key: String,
    /// Its key for the store.
    pub nkey: String,
    /// The key that its certificate will be for: an uncompressed point of P-256, in hexadecimal digits.
    pub certificate_key: String,
    /// The endpoints of its WireGuard.
    pub endpoints: Vec<SocketAddr>,
    /// That it holds the private halves of the three keys. An invite of an earlier version does not ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proofs: Option<KeyProofs>,
}

/// Proofs that a machine holds the private halves of the keys that it shows, each over [`RedeemRequest::digest`], in
/// hexadecimal digits.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyProofs {
    /// HMAC-SHA256 under the X25519 secret that the WireGuard key shares with the key of the invite.
    pub wireguard: String,
    /// Ed25519, by the key for the store.
    pub nkey: String,
    /// ECDSA over P-256 with SHA-256, ASN.1, by the certificate's key.
    pub certificate: String,
}

impl RedeemRequest {
    /// SHA-256 over everything that identifies the machine and the invite. Each part is preceded by its length.
    pub fn digest(&self, network: NetworkId) -> [u8; 32] {
        let mut digest = Sha256::new();
        let ids = [
            network.to_string(),
            self.invite_id.to_string(),
            self.machine_id.to_string(),
        ];
        let parts = ["ployz: keys of a joining machine"]
            .into_iter()
            .chain(ids.iter().map(String::as_str))
            .chain([
                self.secret.expose(),
                &self.wireguard_key,
                &self.nkey,
                &self.certificate_key,
            ]);
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}
