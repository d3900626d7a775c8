//! A machine that cannot get to where releases are from is given the version by the one that drives the update.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ployz_api::client::Session;
use ployz_api::{
    Code, Failure, MachineId, RELEASE_PIECE_LEN, ReleaseFile, ReleasePiece, Request, UpdateStep,
};
use ployz_install::{Arch, Layout, Version, release_path};
use tokio::time::timeout;

use crate::host::program::blocking;
use crate::machine::Machine;
use crate::network::ask_once;
use crate::services::update::member::release;

/// A piece has some kilobytes.
const PIECE_WAIT: Duration = Duration::from_secs(15);

/// Sends what the version consists of, for an architecture. It is verified here first.
pub(crate) async fn pass_on(
    here: &Machine,
    machine: MachineId,
    version: &str,
    arch: &str,
) -> Result<(), Failure> {
    let (version, arch): (Version, Arch) = (version.parse()?, arch.parse()?);
    let (release, wanted) = (release(here)?, version.clone());
    let base = blocking(move || Layout::system().mirror(&release, &wanted, arch)).await?;
    let session = here.client()?.reach_as_admin(machine).await?;
    let sending = async {
        for file in ReleaseFile::ALL {
            let path = base.join(release_path(file, &version, arch));
            send(&session, machine, &version, file, &path).await?;
        }
        Ok(())
    };
    let sent = sending.await;
    session.close().await;
    sent
}

async fn send(
    session: &Session,
    machine: MachineId,
    version: &Version,
    file: ReleaseFile,
    path: &Path,
) -> Result<(), Failure> {
    let mut offset = 0;
    loop {
        let bytes = piece(path, offset).map_err(|error| {
            Failure::new(Code::Internal, format!("{}: {error}", path.display()))
        })?;
        if bytes.is_empty() {
            return Ok(());
        }
        let request = Request::UpdateStep(UpdateStep::Piece(ReleasePiece {
            version: version.to_string(),
            file,
            offset,
            data: STANDARD.encode(&bytes),
        }));
        let sent = timeout(PIECE_WAIT, ask_once(session, machine, &request)).await;
        let late = |_| Failure::new(Code::Timeout, format!("no answer within {PIECE_WAIT:?}"));
        sent.map_err(late)??;
        offset += bytes.len() as u64;
    }
}

fn piece(path: &Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(RELEASE_PIECE_LEN);
    file.take(RELEASE_PIECE_LEN as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
