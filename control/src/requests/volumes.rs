//! Pieces of volumes, for the machine that a workload is moved to, and for nobody else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ployz_api::{
    CertificateName, Code, Failure, MachineId, Outcome, Payload, VolumeBytes, VolumePart,
    VolumeRequest, WorkloadName,
};
use sha2::{Digest as _, Sha256};

use crate::daemon::Daemon;
use crate::host::failure::internal;
use crate::host::identity::hex;
use crate::workloads::{bytes, entries};

pub(crate) fn answer(
    daemon: &Daemon,
    caller: &CertificateName,
    request: &VolumeRequest,
) -> Outcome {
    may_have(daemon, caller, &request.workload)?;
    let root = daemon
        .workloads
        .paused_volume(&request.workload, &request.volume)?;
    Ok(match &request.part {
        VolumePart::Entries { after } => {
            Payload::VolumeEntries(entries(&root, after.as_deref()).map_err(internal)?)
        }
        VolumePart::Bytes { path, offset } => {
            let bytes = bytes(&root, path, *offset).map_err(internal)?;
            Payload::VolumeBytes(VolumeBytes {
                sha256: hex(&Sha256::digest(&bytes)),
                data: STANDARD.encode(bytes),
            })
        }
    }
    .into())
}

/// A coordinator has had that machine claim the workload.
fn may_have(
    daemon: &Daemon,
    caller: &CertificateName,
    workload: &WorkloadName,
) -> Result<(), Failure> {
    let network = daemon.running_network()?;
    let view = network.view();
    let machine = caller.subject.parse::<MachineId>().ok();
    let claims = machine
        .and_then(|id| view.machine(id))
        .map(|it| &it.workloads);
    if claims.is_some_and(|claims| claims.values().any(|held| held == workload)) {
        return Ok(());
    }
    let message = format!("{workload} is not moved to this machine, as far as is known here");
    Err(Failure::new(Code::Busy, message))
}
