//! Getting a workload's volumes from the machine that it is moved from: asked for piece by piece, over the overlay, by the
//! machine that is to run it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
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
use crate::workloads::volumes::Copy;

/// What the workload is given to end before its volumes are copied: its own 10 s, and until its machine has heard of it.
const PAUSE_WAIT: Duration = Duration::from_secs(20);
const PAUSE_POLL: Duration = Duration::from_millis(200);
/// A piece has half a megabyte.
const PIECE_WAIT: Duration = Duration::from_secs(30);

/// One volume, from one machine.
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
) -> anyhow::Result<()> {
    for (volume, directory) in volumes {
        let source = Source {
            session: client.reach(machine).await?,
            workload: workload.clone(),
            volume,
        };
        let named = || format!("volume {} of {workload}", source.volume);
        source.copy(directory).await.with_context(named)?;
    }
    Ok(())
}

impl Source {
    async fn copy(&self, directory: PathBuf) -> anyhow::Result<()> {
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
                    tracing::warn!(%workload, %volume, left_out, "sockets, pipes and devices stay where they were");
                }
                return copy.end();
            }
        }
    }

    async fn fill(&self, copy: &Copy, entry: &VolumeEntry) -> anyhow::Result<()> {
        let EntryKind::File { len } = entry.kind else {
            return Ok(());
        };
        let mut offset = 0;
        while offset < len {
            let bytes = self.bytes(&entry.path, offset).await?;
            ensure!(!bytes.is_empty(), "{} has become shorter", entry.path);
            copy.append(&entry.path, &bytes)?;
            offset += bytes.len() as u64;
        }
        ensure!(offset == len, "{} has become longer", entry.path);
        Ok(())
    }

    /// The next entries, once the workload has ended there.
    async fn entries(&self, after: Option<String>) -> anyhow::Result<VolumeEntries> {
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
                Err(failure) => return Err(failure.into()),
                Ok(_) => bail!("the other machine does not list it"),
            }
        }
    }

    async fn bytes(&self, path: &str, offset: u64) -> anyhow::Result<Vec<u8>> {
        let part = VolumePart::Bytes {
            path: path.to_owned(),
            offset,
        };
        let Some(Payload::VolumeBytes(piece)) = self.ask(part).await?? else {
            bail!("the other machine does not send {path}");
        };
        let bytes = STANDARD.decode(piece.data)?;
        let digest = hex(&Sha256::digest(&bytes));
        ensure!(digest == piece.sha256, "{path} is damaged on its way");
        Ok(bytes)
    }

    async fn ask(
        &self,
        part: VolumePart,
    ) -> anyhow::Result<Result<Option<Payload>, ployz_api::Failure>> {
        let request = Request::Volume(VolumeRequest {
            workload: self.workload.clone(),
            volume: self.volume.clone(),
            part,
        });
        let asking = async { self.session.open(&request).await?.next().await };
        let answer = timeout(PIECE_WAIT, asking)
            .await
            .context("it does not answer")??;
        let answer = answer.context("it hung up")?;
        Ok(Outcome::from(answer).map(|success| success.payload))
    }
}
