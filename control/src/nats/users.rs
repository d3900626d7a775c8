//! The users of the store's servers, and the ports that these listen on.

use std::net::{IpAddr, SocketAddr};

use ployz_api::{MachineId, StoreLocation};
use ployz_core::MachineRecord;

use crate::host::ca::CertificateAuthority;
use crate::host::membership::Membership;
use crate::nats::error::NatsError;
use crate::nats::settings::{Cluster, Settings, User};

/// The role of a store, which decides the ports of its servers: the current store has the configured port and the one
/// after it, the next store the two after these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreRole {
    Current,
    Next,
}

impl StoreRole {
    /// The port for clients.
    pub(crate) fn clients(self, (address, port): (IpAddr, u16)) -> (IpAddr, u16) {
        let offset = match self {
            Self::Current => 0,
            Self::Next => 2,
        };
        (address, port.saturating_add(offset))
    }

    pub(crate) fn routes(self, server: (IpAddr, u16)) -> SocketAddr {
        let (address, port) = self.clients(server);
        SocketAddr::new(address, port.saturating_add(1))
    }
}

/// A machine as a user of its own server. It is a coordinator whatever the records say: otherwise it could not correct
/// them.
pub(crate) const fn own_user(machine: MachineId, nkey: String) -> User {
    User {
        machine,
        nkey,
        coordinator: true,
    }
}

/// The settings of this machine's server of a store. Holders of the store may write everything, and so may `filler`.
pub(crate) fn store_settings<'a>(
    own_user: User,
    membership: &Membership,
    authority: &CertificateAuthority,
    place: &StoreLocation,
    filler: Option<MachineId>,
    machines: impl Iterator<Item = &'a MachineRecord>,
) -> Result<Settings, NatsError> {
    let standing = filler.map_or(StoreRole::Current, |_| StoreRole::Next);
    let own_ip = IpAddr::from(membership.overlay_ip);
    let holds = |ip: IpAddr| place.servers.iter().find(|(address, _)| *address == ip);
    let own = *holds(own_ip).ok_or(NatsError::NotHolder)?;
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
