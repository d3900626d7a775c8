//! What lies on disk of stores: the one that counts, the next one, and the one before.
//!
//! ```text
//!   nats-next ──move_in──▶ nats ──move_in──▶ nats-former ──settle──▶ nothing
//! ```

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use ployz_api::{MachineId, StoreLocation};
use ployz_core::{AddressPlan, MachineRecord, SavedView};
use serde::{Deserialize, Serialize};

use crate::authority::Authority;
use crate::daemon::Daemon;
use crate::membership::{AUTHORITY_FILE, Membership, VIEW_FILE};
use crate::nats::{
    Certificates, Cluster, DIRECTORY, FORMER_DIRECTORY, NEXT_DIRECTORY, NatsServer, Settings, User,
};

/// A server of a cluster looks for somebody who takes its part over, and nobody is to: all of them are exchanged.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// The file of a [`Prepared`].
pub(super) const PREPARED_FILE: &str = "storage-next.json";

/// The next store, as far as this machine has a part in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prepared {
    pub(super) place: StoreLocation,
    pub(super) coordinator: MachineId,
    pub(super) authority: Authority,
    pub(super) addresses: AddressPlan,
}

/// Where a server of a store listens: its own port and the next one are those of the store that counts, and the two after that those of one
/// that does not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Counts,
    Next,
}

impl Standing {
    /// Where clients reach it.
    pub(super) fn clients(self, (address, port): (IpAddr, u16)) -> (IpAddr, u16) {
        let offset = match self {
            Self::Counts => 0,
            Self::Next => 2,
        };
        (address, port.saturating_add(offset))
    }

    fn routes(self, server: (IpAddr, u16)) -> SocketAddr {
        let (address, port) = self.clients(server);
        SocketAddr::new(address, port.saturating_add(1))
    }
}

/// A machine, as the server that it runs itself knows it. Whatever the records say: without itself among those that may write it could not
/// mend them.
pub(crate) const fn own_user(machine: MachineId, nkey: String) -> User {
    User {
        machine,
        nkey,
        coordinator: true,
    }
}

/// How this machine's server of a store is set up. Who holds the store may write everything, and so may `filler`.
pub(crate) fn settings<'a>(
    own_user: User,
    membership: &Membership,
    authority: &Authority,
    place: &StoreLocation,
    filler: Option<MachineId>,
    machines: impl Iterator<Item = &'a MachineRecord>,
) -> anyhow::Result<Settings> {
    let standing = filler.map_or(Standing::Counts, |_| Standing::Next);
    let own_ip = IpAddr::from(membership.overlay_ip);
    let holds = |ip: IpAddr| place.servers.iter().find(|(address, _)| *address == ip);
    let own = *holds(own_ip).context("this machine does not hold the store")?;
    let listen = standing.clients(own).into();
    let cluster = (place.servers.len() > 1).then(|| Cluster {
        name: format!("{}-{}", membership.network_id, place.epoch),
        listen: standing.routes(own),
        secret: authority.route_secret(place.epoch),
        routes: place
            .servers
            .iter()
            .map(|it| standing.routes(*it))
            .collect(),
    });
    let machine = own_user.machine;
    let others = machines.filter(|other| other.id != machine);
    let others = others.map(|machine| User {
        machine: machine.id,
        nkey: machine.nkey.clone(),
        coordinator: holds(machine.overlay_ip.into()).is_some() || filler == Some(machine.id),
    });
    Ok(Settings {
        machine,
        listen,
        users: std::iter::once(own_user).chain(others).collect(),
        cluster,
    })
}

/// The server of the next store, as it is run here.
pub(super) fn next_server(daemon: &Daemon) -> NatsServer {
    NatsServer::next(Rc::clone(&daemon.files), &daemon.config.nats_server)
}

/// Has everything of stores where it belongs, as `network.json` says which one counts: a next store that has become the one that counts
/// moves in, one that may still become it runs on, and where no store is held none runs.
pub(crate) async fn move_in(daemon: &Daemon, membership: &Membership) -> anyhow::Result<()> {
    let files = &daemon.files;
    let prepared: Option<Prepared> = files.read(PREPARED_FILE)?;
    if let Some(prepared) = prepared {
        if prepared.place.epoch > membership.store_epoch {
            next_server(daemon).start().await?;
        } else if prepared.place.epoch == membership.store_epoch && membership.is_storage() {
            exchange(daemon, membership, &prepared.authority).await?;
            files.remove(PREPARED_FILE)?;
        } else {
            abandon(daemon).await?;
        }
    }
    if !membership.is_storage() && files.path(DIRECTORY).exists() {
        daemon.nats_server().stop().await?;
        put_aside(daemon)?;
    }
    Ok(())
}

async fn exchange(
    daemon: &Daemon,
    membership: &Membership,
    authority: &Authority,
) -> anyhow::Result<()> {
    let (next, nats) = (next_server(daemon), daemon.nats_server());
    next.stop_within(STOP_WAIT).await?;
    nats.stop_within(STOP_WAIT).await?;
    // If it is not there, it has moved in already.
    if daemon.files.path(NEXT_DIRECTORY).exists() {
        put_aside(daemon)?;
        daemon.files.rename(NEXT_DIRECTORY, DIRECTORY)?;
    }
    let saved: Option<SavedView> = daemon.files.read_last_good(VIEW_FILE)?;
    let machines = saved.map(|saved| saved.machines).unwrap_or_default();
    let place = membership.store_location();
    let own = own_user(daemon.identity.machine_id, daemon.identity.nkey()?);
    let settings = settings(own, membership, authority, &place, None, machines.iter())?;
    nats.configure(&settings)
}

fn put_aside(daemon: &Daemon) -> anyhow::Result<()> {
    if daemon.files.path(DIRECTORY).exists() {
        daemon.files.remove(FORMER_DIRECTORY)?;
        daemon.files.rename(DIRECTORY, FORMER_DIRECTORY)?;
    }
    Ok(())
}

/// Sets a server of the next store up, and starts it. What there is of an earlier next one goes.
pub(super) async fn prepare(
    daemon: &Daemon,
    membership: &Membership,
    prepared: &Prepared,
    machines: &[MachineRecord],
) -> anyhow::Result<()> {
    abandon(daemon).await?;
    let next = next_server(daemon);
    let settings = settings(
        own_user(daemon.identity.machine_id, daemon.identity.nkey()?),
        membership,
        &prepared.authority,
        &prepared.place,
        Some(prepared.coordinator),
        machines.iter(),
    )?;
    let certificates = Certificates {
        ca_pem: &membership.ca_pem,
        certificate_pem: &membership.certificate_pem,
        key_pem: daemon.identity.certificate_key_pem.expose(),
    };
    next.set_up(&settings, certificates)?;
    daemon.files.write(PREPARED_FILE, prepared)?;
    next.start().await
}

/// Takes a next store away that will never count.
pub(super) async fn abandon(daemon: &Daemon) -> anyhow::Result<()> {
    next_server(daemon).destroy().await?;
    daemon.files.remove(PREPARED_FILE)
}

/// Takes away what there is of the stores before the one that counts; where that is not held, also what its holders are trusted with.
pub(super) fn settle(daemon: &Daemon, membership: &Membership) -> anyhow::Result<()> {
    daemon.files.remove(FORMER_DIRECTORY)?;
    if !membership.is_storage() {
        daemon.files.remove(AUTHORITY_FILE)?;
    }
    Ok(())
}

/// Takes everything away that is not of the store that counts.
pub(crate) async fn forget(daemon: &Daemon) -> anyhow::Result<()> {
    abandon(daemon).await?;
    daemon.files.remove(FORMER_DIRECTORY)?;
    daemon.files.remove(super::JOURNAL_FILE)
}
