//! The management protocol of `ployzctl` and `ployzd`, and its vocabulary.
//!
//! Types and their text forms, without I/O. With the feature `client` there is also [`client`], which asks a daemon
//! over QUIC. `docs/protocol.md` describes what goes over the wire.

#![forbid(unsafe_code)]

mod answer;
mod certificate;
#[cfg(feature = "client")]
pub mod client;
mod code;
mod credential;
mod doctor;
mod event;
mod frame;
mod id;
mod installation;
mod label;
mod machine;
mod migration;
mod name;
mod operation;
mod redeemed;
mod removal;
mod request;
mod request_table;
mod response;
mod rtt;
mod secret;
mod storage;
pub mod text;
mod token;
mod update;
mod workload;

pub use certificate::{CertificateName, LOCAL_NETWORK, Role};
pub use code::Code;
pub use credential::{Context, Credential, LOCAL_CREDENTIAL_FILE, MEMBER_CREDENTIAL_FILE};
pub use doctor::{Check, Doctor, PairReport, PeerReport, Verdict};
pub use event::{
    EVENT_MESSAGE_LEN_MAX, EVENT_TARGET_LEN_MAX, EVENTS_LIMIT_DEFAULT, EVENTS_LIMIT_MAX, Event,
    EventList,
};
pub use frame::{
    FrameError, HEADER_LEN, HEARTBEAT, REQUEST_LEN_MAX, RESPONSE_LEN_MAX, body_len, encode,
};
pub use id::{CredentialId, InstanceId, InvalidId, InviteId, MachineId, NetworkId, OperationId};
pub use installation::Installation;
pub use label::{InvalidLabel, LabelChange, LabelKey, LabelValue};
pub use machine::{
    Authority, CredentialStatus, InviteStatus, Lifecycle, NetworkState, Posture, RegionRole,
};
pub use migration::{
    EntryKind, MigrateApply, MigratePreview, MigrateRequest, VOLUME_CHUNK_LEN, VOLUME_ENTRIES_MAX,
    VolumeBytes, VolumeEntries, VolumeEntry, VolumePart, VolumeRequest,
};
pub use name::{InvalidName, Name};
pub use operation::{LEASE_SECS, OperationList, OperationRow, Stage, WorkState};
pub use redeemed::{Redeemed, Renewed};
pub use removal::{CleanupStep, MachineRemove, MachineRetired};
pub use request::{
    CredentialRequest, Destination, InviteRequest, KeyProofs, MeshInitRequest, ProvisionReport,
    RedeemRequest, Request, TTL_SECS_DEFAULT, TTL_SECS_MAX,
};
pub use request_table::{Answerer, Answers, Circle, Effect, Operation, REQUESTS, Row};
pub use response::{
    Control, CredentialList, CredentialRow, DataPlane, Failure, Invite, InviteList, InviteRow,
    KeyExchanges, MachineInspect, MachineJoin, MachineLifecycle, MachineList, MachineRecordShown,
    MachineRow, MeshInit, MeshList, MeshReady, MeshRow, MeshStatus, NewCredential, Outcome,
    Payload, Response, Status, StorageState, Success,
};
pub use rtt::{MachineRtt, PeerRtt, RTT_COUNT_MAX, RttRecord, RttRow};
pub use secret::Secret;
pub use storage::{
    FailedPromotion, NextStore, StorageList, StoragePromotion, StorageReport, StorageRequest,
    StorageRow, StorageStep, StoreLocation,
};
pub use token::{Coordinators, InvalidToken, SECRET_LEN, Token, fingerprint};
pub use update::{
    FailedMachine, MachineHealth, MachineUpdate, RELEASE_PIECE_LEN, ReleaseFetched, ReleaseFile,
    ReleasePiece, ReleaseSource, Switch, UpdateRequest, UpdateStep, UpdatedMachine,
    UpdatingMachine,
};
pub use workload::{
    DeployRequest, InvalidSpec, InvalidWorkload, Program, PublishedPort, SPEC_LEN_MAX,
    WorkloadInspect, WorkloadList, WorkloadLogs, WorkloadName, WorkloadRow, WorkloadSpec,
    WorkloadState,
};

/// The version of the protocol: both sides refuse any other before a byte of it is read.
pub const ALPN: &[u8] = b"ployz/1";

/// Ends a connection before a request was read: ask again later (QUIC application code).
pub const BUSY: u32 = 2;

/// Ends a connection whose holder the network does not know, or knows no more.
pub const NO_MEMBER: u32 = 1;
