//! What `ployzctl` and `ployzd` say to each other, and what they call things.
//!
//! Types and their text forms, without I/O. With the feature `client` there is also [`client`], which asks a daemon over
//! QUIC. `docs/protocol.md` describes what goes over the wire.

#![forbid(unsafe_code)]

mod certificate;
#[cfg(feature = "client")]
pub mod client;
mod code;
mod credential;
mod frame;
mod id;
mod label;
mod machine;
mod name;
mod request;
mod response;
mod secret;
mod token;

pub use certificate::{CertificateName, LOCAL_NETWORK, Role};
pub use code::Code;
pub use credential::{Credential, LOCAL_CREDENTIAL_FILE};
pub use frame::{FrameError, HEADER_LEN, REQUEST_LEN_MAX, RESPONSE_LEN_MAX, body_len, encode};
pub use id::{InvalidId, InviteId, MachineId, NetworkId};
pub use label::{InvalidLabel, LabelChange, LabelKey, LabelValue};
pub use machine::{Authority, InviteStatus, Lifecycle, NetworkState, RegionRole};
pub use name::{InvalidName, Name};
pub use request::{
    InviteRequest, MeshInitRequest, Operation, RedeemRequest, Request, TTL_SECS_DEFAULT,
    TTL_SECS_MAX,
};
pub use response::{
    CleanupStep, Control, DataPlane, Failure, Invite, InviteList, InviteRow, MachineInspect,
    MachineJoin, MachineList, MachineRecordShown, MachineRemove, MachineRow, MachineRtt, MeshInit,
    MeshList, MeshReady, MeshRow, MeshStatus, Outcome, Payload, Redeemed, Response, RttRow, Status,
    StorageState, Success,
};
pub use secret::Secret;
pub use token::{InvalidToken, SECRET_LEN, Token, fingerprint};

/// The version of the protocol: both sides refuse any other before a byte of it is read.
pub const ALPN: &[u8] = b"ployz/1";

/// What a server says when it closes a connection before it has read a request: ask again later (QUIC application code).
pub const BUSY: u32 = 2;
