//! Moving a workload, and what machines say to each other for that.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, MachineId, OperationId};
use crate::name::Name;
use crate::workload::WorkloadName;

/// A workload and the machine to move it to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrateRequest {
    /// Which workload.
    pub workload: WorkloadName,
    /// To which machine: its id, its name, or the unique beginning of either.
    pub to: String,
}

/// How a workload would be moved.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named as its content is")]
pub struct MigratePreview {
    pub workload: WorkloadName,
    pub from: Name,
    pub to: Name,
    /// The volumes to copy. Nothing runs while they are copied.
    pub volumes: Vec<Name>,
    pub stages: Vec<String>,
}

/// A workload that is being moved.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named as its content is")]
pub struct MigrateApply {
    pub operation_id: OperationId,
    pub workload: WorkloadName,
    pub from: MachineId,
    pub to: MachineId,
    pub id: InstanceId,
}

/// The bytes of a file that one answer carries, before base64 makes them a third longer; an answer has 1 MiB.
pub const VOLUME_CHUNK_LEN: usize = 512 << 10;
/// The entries that one answer carries; with paths of 200 bytes, a quarter of it.
pub const VOLUME_ENTRIES_MAX: usize = 1_000;

/// From the machine that a workload is moved to: a piece of a volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRequest {
    /// The workload whose volume it is.
    pub workload: WorkloadName,
    /// Which one.
    pub volume: Name,
    /// Which piece.
    pub part: VolumePart,
}

/// A piece of a volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumePart {
    /// The entries of the volume in the order of paths, after this one.
    Entries {
        /// The last one that is known.
        after: Option<String>,
    },
    /// The bytes of a file of the volume, from this offset on.
    Bytes {
        /// The file.
        path: String,
        /// Bytes that are known.
        offset: u64,
    },
}

/// The entries of a volume, or the next part of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct VolumeEntries {
    /// By path.
    pub entries: Vec<VolumeEntry>,
    /// How many sockets, pipes and devices are in the volume, which are not among them.
    pub left_out: u64,
    /// Whether there is more.
    pub more: bool,
}

/// A file, a directory or a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeEntry {
    /// Within the volume; empty for the volume itself.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// The user that it belongs to, by number.
    pub uid: u32,
    /// The group, by number.
    pub gid: u32,
    /// When it was written last, in nanoseconds since 1970; zero for a link.
    pub modified_ns: i64,
    /// The kind of the entry.
    pub kind: EntryKind,
}

/// The kind of an entry in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file of so many bytes.
    File {
        /// In bytes.
        len: u64,
    },
    /// A symbolic link.
    Link {
        /// To here.
        to: String,
    },
    /// Another name of a file that has been said before.
    Same {
        /// Its first name, within the volume.
        file: String,
    },
}

/// A piece of a file.
#[derive(Serialize, Deserialize)]
pub struct VolumeBytes {
    /// In base64; at most [`VOLUME_CHUNK_LEN`] bytes of the file.
    pub data: String,
    /// Of the bytes, in hexadecimal digits.
    pub sha256: String,
}

impl fmt::Debug for VolumeBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumeBytes")
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}
