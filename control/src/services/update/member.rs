//! One machine's part in an update: bring a version here, exchange it, say how it is.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ployz_api::{
    Code, Failure, MachineHealth, MachineId, Outcome, Payload, ReleaseFetched, ReleasePiece,
    ReleaseSource, Success, UpdateStep,
};
use ployz_engine::PublicKey as WireguardKey;
use ployz_install::{Arch, Base, Layout, PublicKey, Release, Version, release_path};

use crate::host::program::blocking;
use crate::machine::Machine;
use crate::network::Host as _;
use crate::services::measure;

/// How long a version that is not confirmed may run: longer than it is waited for that it is healthy.
const UNCONFIRMED_WAIT: Duration = Duration::from_secs(90);
/// What the release's key is written to by `daemon install`.
const RELEASE_KEY: &str = "/etc/ployz/release.pub";
/// Round trips that a median is of. An odd number has one.
const ROUND_TRIPS: u16 = 5;

/// Does one step.
pub(crate) async fn step(here: &Machine, step: UpdateStep) -> Outcome {
    match step {
        UpdateStep::Fetch { version, way } => {
            let (version, release) = (version.parse()?, release_by(here, way));
            let fetched = blocking(move || fetch(release, &version, way)).await?;
            Ok(Payload::ReleaseFetched(fetched).into())
        }
        UpdateStep::Piece(piece) => {
            blocking(move || store_piece(&piece)).await?;
            Ok(done())
        }
        UpdateStep::Health => {
            let health = health(here).await?;
            Ok(Payload::MachineHealth(Box::new(health)).into())
        }
        UpdateStep::Switch { version, rollback } => {
            let version = version.parse()?;
            blocking(move || Layout::system().switch(&version, UNCONFIRMED_WAIT, rollback)).await?;
            Ok(done())
        }
        UpdateStep::Confirm => {
            blocking(|| {
                Layout::system().record_verdict(true)?;
                Layout::system().prune()
            })
            .await?;
            Ok(done())
        }
        UpdateStep::Revert => {
            blocking(|| Layout::system().record_verdict(false)).await?;
            Ok(done())
        }
    }
}

/// The releases that this machine takes.
pub(crate) fn release(here: &Machine) -> Result<Release, Failure> {
    let base: Base = here.config.release_base.clone().ok_or_else(|| {
        let message = "no release base is configured";
        Failure::new(Code::InstallFailed, message)
            .hint("ployzctl daemon install --release-base URL --release-key KEY, on that machine")
    })?;
    Ok(Release::new(base, PublicKey::read(Path::new(RELEASE_KEY))?))
}

fn release_by(here: &Machine, way: ReleaseSource) -> Result<Release, Failure> {
    match way {
        ReleaseSource::Base => release(here),
        ReleaseSource::Coordinator => {
            let key = PublicKey::read(Path::new(RELEASE_KEY))?;
            Ok(Release::new(Layout::system().received_mirror(), key))
        }
    }
}

/// Whatever the one who asks thinks of it: this machine looks at the order of versions and at the signature itself.
fn fetch(
    release: Result<Release, Failure>,
    version: &Version,
    way: ReleaseSource,
) -> Result<ReleaseFetched, Failure> {
    let arch = Arch::here()?;
    let layout = Layout::system();
    let current = layout.current().ok_or_else(|| {
        let message = "this daemon was not installed by ployzctl daemon install";
        Failure::new(Code::Unsupported, message).hint("ployzctl daemon install, on that machine")
    })?;
    current.refuse_downgrade(version)?;
    let readable = release.and_then(|release| release.check_version(version).map(|()| release));
    let fetched = |unreachable| ReleaseFetched {
        arch: arch.to_string(),
        unreachable,
    };
    let release = match (readable, way) {
        (Err(failure), ReleaseSource::Base) => return Ok(fetched(Some(failure.message))),
        (readable, ReleaseSource::Base | ReleaseSource::Coordinator) => readable?,
    };
    layout.fetch(&release, version, arch, &mut |_| {})?;
    if way == ReleaseSource::Coordinator {
        layout.remove_mirrors()?;
    }
    Ok(fetched(None))
}

/// What it is worth is seen when all of it is here.
fn store_piece(piece: &ReleasePiece) -> Result<(), Failure> {
    let invalid = |cause: &str| Failure::new(Code::InvalidArgument, cause);
    let bytes = STANDARD.decode(&piece.data);
    let bytes = bytes.map_err(|_| invalid("the data of the piece is not base64"))?;
    let path = release_path(piece.file, &piece.version.parse()?, Arch::here()?);
    Layout::system().keep_piece(&path, piece.offset, &bytes)
}

async fn health(here: &Machine) -> Result<MachineHealth, Failure> {
    let network = here.running_network()?;
    let keys = here.sessions().await?;
    let has_session = |key: &str| {
        let key = WireguardKey::from_base64(key);
        key.is_ok_and(|key| keys.contains_key(&key))
    };
    let peers: Vec<MachineId> = {
        let view = network.view();
        let with_session = view.machines().filter(|it| has_session(&it.wireguard_key));
        with_session.map(|it| it.id).collect()
    };
    let measured = measure::measure(here, &peers, Some(ROUND_TRIPS)).await?;
    let p50_ns = measured
        .peers
        .iter()
        .filter(|rtt| rtt.samples > 0)
        .map(|rtt| (rtt.peer, rtt.p50_ns));
    Ok(MachineHealth {
        version: ployz_install::own_version().to_owned(),
        sessions: peers.into_iter().collect(),
        p50_ns: p50_ns.collect(),
        store: network.store.is_connected(),
        gap_ms: here
            .overlay
            .gap()
            .and_then(|gap| u64::try_from(gap.as_millis()).ok()),
        switch: Layout::system().switch_state(),
    })
}

const fn done() -> Success {
    Success {
        message: String::new(),
        payload: None,
    }
}
