//! Pieces of volumes, for the machine that a workload is moved to, and for nobody else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ployz_api::{Outcome, Payload, VolumeBytes, VolumePart, VolumeRequest};
use sha2::{Digest as _, Sha256};

use crate::host::identity::hex;
use crate::machine::Machine;
use crate::workloads::{bytes, entries};

pub(super) fn answer(here: &Machine, request: &VolumeRequest) -> Outcome {
    let root = here
        .workloads
        .paused_volume(&request.workload, &request.volume)?;
    Ok(match &request.part {
        VolumePart::Entries { after } => Payload::VolumeEntries(entries(&root, after.as_deref())?),
        VolumePart::Bytes { path, offset } => {
            let bytes = bytes(&root, path, *offset)?;
            Payload::VolumeBytes(VolumeBytes {
                sha256: hex(&Sha256::digest(&bytes)),
                data: STANDARD.encode(bytes),
            })
        }
    }
    .into())
}
