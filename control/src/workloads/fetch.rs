//! The copy of a workload's volumes from the machine that it is moved from: the machine that is to run it requests them
//! piece by piece over the overlay.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ployz_api::client::Session;
use ployz_api::{
    Code, EntryKind, MachineId, Name, Outcome, Payload, Request, VolumeEntries, VolumeEntry,
    VolumePart, VolumeRequest, WorkloadName,
};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep, timeout};

use crate::host::identity::hex;
use crate::network::Client;
use crate::workloads::error::WorkloadError;
use crate::workloads::volumes::Copy;

/// The time for the workload to end before its volumes are copied: 10 s after SIGTERM, and the delay until its machine
/// learns of the move.
const PAUSE_WAIT: Duration = Duration::from_secs(20);
const PAUSE_POLL: Duration = Duration::from_millis(200);
/// The time for a piece of half a megabyte.
const PIECE_WAIT: Duration = Duration::from_secs(30);

/// A volume on another machine.
pub(super) struct Source {
    session: Session,
    workload: WorkloadName,
    volume: Name,
}

/// Copies volumes to these directories.
pub(super) async fn fetch(
    client: &Client,
    machine: MachineId,
    workload: &WorkloadName,
    volumes: Vec<(Name, PathBuf)>,
) -> Result<(), WorkloadError> {
    for (volume, directory) in volumes {
        let source = Source {
            session: client.reach(machine).await?,
            workload: workload.clone(),
            volume,
        };
        let copied = source.copy(directory).await;
        copied.map_err(|cause| WorkloadError::Volume {
            volume: source.volume.clone(),
            workload: workload.clone(),
            cause: Box::new(cause),
        })?;
    }
    Ok(())
}

impl Source {
    async fn copy(&self, directory: PathBuf) -> Result<(), WorkloadError> {
        let mut copy = Copy::begin(directory)?;
        let mut after = None;
        loop {
            let VolumeEntries {
                entries,
                left_out,
                more,
            } = self.entries(after.take()).await?;
            for entry in &entries {
                copy.make(entry)?;
                self.fill(&copy, entry).await?;
            }
            after = entries.last().map(|last| last.path.clone());
            if !more || after.is_none() {
                if left_out > 0 {
                    let (workload, volume) = (&self.workload, &self.volume);
                    tracing::warn!(%workload, %volume, left_out, "sockets, pipes and devices are not copied");
                }
                return copy.end();
            }
        }
    }

    async fn fill(&self, copy: &Copy, entry: &VolumeEntry) -> Result<(), WorkloadError> {
        let EntryKind::File { len } = entry.kind else {
            return Ok(());
        };
        let mut offset = 0;
        while offset < len {
            let bytes = self.bytes(&entry.path, offset).await?;
            if bytes.is_empty() {
                return Err(WorkloadError::path(&entry.path, "has become shorter"));
            }
            copy.append(&entry.path, &bytes)?;
            offset += bytes.len() as u64;
        }
        if offset != len {
            return Err(WorkloadError::path(&entry.path, "has become longer"));
        }
        Ok(())
    }

    /// The next entries; waits until the workload has ended on the other machine.
    async fn entries(&self, after: Option<String>) -> Result<VolumeEntries, WorkloadError> {
        let deadline = Instant::now() + PAUSE_WAIT;
        loop {
            let part = VolumePart::Entries {
                after: after.clone(),
            };
            match self.ask(part).await? {
                Ok(Some(Payload::VolumeEntries(entries))) => return Ok(entries),
                Err(failure) if failure.code == Code::Busy && Instant::now() < deadline => {
                    sleep(PAUSE_POLL).await;
                }
                Err(failure) => return Err(WorkloadError::Answered(failure)),
                Ok(_) => return Err(unsent("the machine's answer does not fit the question")),
            }
        }
    }

    async fn bytes(&self, path: &str, offset: u64) -> Result<Vec<u8>, WorkloadError> {
        let part = VolumePart::Bytes {
            path: path.to_owned(),
            offset,
        };
        let answer = self.ask(part).await?.map_err(WorkloadError::Answered)?;
        let Some(Payload::VolumeBytes(piece)) = answer else {
            return Err(unsent("the machine's answer does not fit the question"));
        };
        let bytes = STANDARD.decode(piece.data).map_err(unsent)?;
        if hex(&Sha256::digest(&bytes)) != piece.sha256 {
            return Err(WorkloadError::path(path, "was damaged on its way"));
        }
        Ok(bytes)
    }

    async fn ask(
        &self,
        part: VolumePart,
    ) -> Result<Result<Option<Payload>, ployz_api::Failure>, WorkloadError> {
        let request = Request::Volume(VolumeRequest {
            workload: self.workload.clone(),
            volume: self.volume.clone(),
            part,
        });
        let asking = async { self.session.open(&request).await?.next().await };
        let answer = timeout(PIECE_WAIT, asking)
            .await
            .map_err(|_| unsent("it did not answer"))?
            .map_err(unsent)?;
        let answer = answer.ok_or_else(|| unsent("it closed the connection"))?;
        Ok(Outcome::from(answer).map(|success| success.payload))
    }
}

fn unsent(cause: impl Display) -> WorkloadError {
    WorkloadError::Unsent(cause.to_string())
}
