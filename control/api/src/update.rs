//! Bringing machines to another version.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{MachineId, OperationId};
use crate::name::Name;

/// Which machines are to have which version.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateRequest {
    /// Ids, names, or the unique beginnings of either. All machines if it is empty.
    pub machines: Vec<String>,
    /// The latest one if none is said.
    pub version: Option<String>,
    /// After so many machines they are watched for a while before the others follow.
    pub canary: Option<u32>,
    /// Roll a machine back that is not healthy after the switch.
    pub rollback: bool,
}

/// A step on one machine, requested by the coordinator of the update.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UpdateStep {
    /// Have this version lie beside the others, verified. Nothing that runs is touched.
    Fetch {
        /// Which one.
        version: String,
        /// From where.
        #[serde(default, skip_serializing_if = "ReleaseSource::is_base")]
        way: ReleaseSource,
    },
    /// Keep a piece of a mirrored version, until it is fetched by [`ReleaseSource::Coordinator`].
    Piece(ReleasePiece),
    /// How are you?
    Health,
    /// Start this version instead of the one that runs.
    Switch {
        /// Which one.
        version: String,
        /// Go back unless this is confirmed in time.
        rollback: bool,
    },
    /// Stay with it.
    Confirm,
    /// Go back now.
    Revert,
}

/// The source that a machine gets a version from. It verifies signature and digest itself in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseSource {
    /// The machine fetches it from the release base.
    #[default]
    Base,
    /// The coordinator of the update has given it to the machine, which cannot reach the release base.
    Coordinator,
}

impl ReleaseSource {
    const fn is_base(&self) -> bool {
        matches!(self, Self::Base)
    }
}

/// A file of a version, for one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseFile {
    /// The digests.
    Sums,
    /// The signature of those.
    Signature,
    /// The programs, packed.
    Artifact,
}

impl ReleaseFile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sums, Self::Signature, Self::Artifact];
}

/// The bytes that one piece has, before base64 makes them a third longer; a request has 64 KiB.
pub const RELEASE_PIECE_LEN: usize = 45 << 10;

/// Some bytes of a file of a version.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasePiece {
    /// Which version.
    pub version: String,
    /// Which file.
    pub file: ReleaseFile,
    /// How many bytes are before it; none begins the file anew.
    pub offset: u64,
    /// In base64; at most [`RELEASE_PIECE_LEN`] bytes.
    pub data: String,
}

impl fmt::Debug for ReleasePiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReleasePiece")
            .field("version", &self.version)
            .field("file", &self.file)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// The result of [`UpdateStep::Fetch`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseFetched {
    /// The architecture of the machine's programs.
    pub arch: String,
    /// Why it could not read the version where releases are from; none if the version lies there now.
    pub unreachable: Option<String>,
}

/// How a machine is, as far as an update is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineHealth {
    /// The version that answers.
    pub version: String,
    /// With whom it has a session.
    pub sessions: BTreeSet<MachineId>,
    /// The median round trip to each of those that measure, in nanoseconds.
    pub p50_ns: BTreeMap<MachineId, u64>,
    /// Whether the store answers it.
    pub store: bool,
    /// For how long no traffic went through when this daemon took over from the one before; none if that is not known.
    pub gap_ms: Option<u64>,
    /// How far the switch is.
    pub switch: Switch,
}

/// How far a machine is with exchanging its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// No switch has taken place, or its state is unknown.
    #[default]
    None,
    /// The new version is being started, and is watched.
    Watched,
    /// The new version has been confirmed.
    Confirmed,
    /// The former version runs again.
    Reverted,
    /// The new version was not confirmed and stays, as requested.
    Kept,
}

/// An update as it goes on, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineUpdate {
    /// Under which it is found.
    pub operation_id: OperationId,
    /// The version to install.
    pub version: String,
    /// Those that have it now, in the order in which they got it.
    pub updated: Vec<UpdatedMachine>,
    /// Those that had it before.
    pub unchanged: Vec<MachineId>,
    /// Those that have not got it; the first ends the update.
    pub failed: Vec<FailedMachine>,
    /// Those that nothing was done to, in the order in which it is to be.
    pub untouched: Vec<MachineId>,
    /// The one at whose version something is being done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Box<UpdatingMachine>>,
    /// After so many they are watched for a while.
    pub canary: Option<u32>,
    /// Whether a machine that does not come back healthy goes back.
    pub rollback: bool,
}

/// A machine that has the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named as its content is")]
pub struct UpdatedMachine {
    pub id: MachineId,
    pub name: Name,
    pub from: String,
    pub to: String,
    /// How it got there.
    #[serde(default)]
    pub release_from: ReleaseSource,
    /// For how long no traffic went through; none if none was waiting.
    pub gap_ms: Option<u64>,
}

/// A machine that has not got it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named as its content is")]
pub struct FailedMachine {
    pub id: MachineId,
    pub name: Name,
    /// `download`, `switch` or `health`.
    pub stage: String,
    pub message: String,
    /// Whether it runs the version that it had.
    pub rolled_back: bool,
}

/// A machine whose version is being exchanged, and how it was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named as its content is")]
pub struct UpdatingMachine {
    pub id: MachineId,
    pub name: Name,
    pub before: MachineHealth,
    #[serde(default)]
    pub release_from: ReleaseSource,
}
