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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ployz_api::NetworkId;

    use super::*;
    use crate::host::identity::Identity;
    use crate::testkit::{member_of, record};

    const PORT: u16 = 4_222;

    /// Machines at 10.0.<number>.1, of which the first is this one.
    struct Machines {
        membership: Membership,
        authority: CertificateAuthority,
        records: Vec<MachineRecord>,
    }

    impl Machines {
        fn new(count: u16) -> Self {
            let authority = CertificateAuthority::generate("n").unwrap();
            let own = Identity::generate().unwrap();
            let mut membership = member_of(NetworkId::new(1, 1), &authority, &own);
            membership.overlay_ip = Ipv4Addr::new(10, 0, 1, 1);
            let others = (2..=count).map(|number| record(&Identity::generate().unwrap(), number));
            let records = std::iter::once(record(&own, 1)).chain(others).collect();
            Self {
                membership,
                authority,
                records,
            }
        }

        fn id(&self, number: usize) -> MachineId {
            self.records[number - 1].id
        }

        fn place(&self, epoch: u32, holders: &[usize]) -> StoreLocation {
            let server = |number: &usize| (self.records[number - 1].overlay_ip.into(), PORT);
            StoreLocation {
                epoch,
                servers: holders.iter().map(server).collect(),
            }
        }

        fn settings(
            &self,
            place: &StoreLocation,
            filler: Option<MachineId>,
        ) -> Result<Settings, NatsError> {
            store_settings(
                own_user(self.id(1), "OWN".to_owned()),
                &self.membership,
                &self.authority,
                place,
                filler,
                self.records.iter(),
            )
        }

        /// Who may write everything, and who may not.
        fn roles(&self, settings: &Settings) -> Vec<bool> {
            let user = |record: &MachineRecord| {
                let mut users = settings.users.iter();
                let user = users.find(|user| user.machine == record.id);
                user.expect("everybody is a user").coordinator
            };
            assert_eq!(settings.users.len(), self.records.len(), "and once");
            self.records.iter().map(user).collect()
        }
    }

    #[test]
    fn a_single_holder_is_no_cluster_and_the_only_coordinator() {
        let machines = Machines::new(3);
        let settings = machines.settings(&machines.place(0, &[1]), None).unwrap();
        assert!(settings.cluster.is_none());
        assert_eq!(settings.machine, machines.id(1));
        assert_eq!(settings.listen, ([10, 0, 1, 1], PORT).into());
        assert_eq!(machines.roles(&settings), [true, false, false]);
        let own = own_user(machines.id(1), "OWN".to_owned());
        assert_eq!(
            settings.users[0], own,
            "by its own key, not that of the records"
        );
        assert_eq!(settings.users[1].nkey, machines.records[1].nkey);
    }

    #[test]
    fn who_holds_the_store_follows_from_its_place_and_not_from_the_records() {
        use ployz_api::Authority;
        let mut machines = Machines::new(4);
        machines.records[3].authority = Authority::Storage;
        let place = machines.place(7, &[1, 2, 3]);
        let settings = machines.settings(&place, None).unwrap();
        assert_eq!(machines.roles(&settings), [true, true, true, false]);
        // It is a coordinator of its own server before it has a record.
        machines.records.remove(0);
        let own = machines.membership.overlay_ip;
        let settings = store_settings(
            own_user(MachineId::new(1, 1), "OWN".to_owned()),
            &machines.membership,
            &machines.authority,
            &place,
            None,
            std::iter::empty(),
        );
        let settings = settings.unwrap();
        assert!(settings.users.len() == 1 && settings.users[0].coordinator);
        assert_eq!(settings.listen.ip(), IpAddr::from(own));
    }

    #[test]
    fn the_servers_of_a_cluster_know_each_others_routes_and_one_secret() {
        let machines = Machines::new(3);
        let settings = machines
            .settings(&machines.place(7, &[1, 2, 3]), None)
            .unwrap();
        let cluster = settings.cluster.unwrap();
        assert_eq!(
            cluster.name,
            format!("{}-7", machines.membership.network_id)
        );
        assert_eq!(cluster.listen, ([10, 0, 1, 1], PORT + 1).into());
        let routes = [1, 2, 3].map(|number| SocketAddr::from(([10, 0, number, 1], PORT + 1)));
        assert_eq!(cluster.routes, routes);
        let secret = |epoch| machines.authority.route_secret(epoch).expose().to_owned();
        assert_eq!(cluster.secret.expose(), secret(7));
        assert_ne!(
            secret(7),
            secret(8),
            "a former holder does not know the next one"
        );
    }

    #[test]
    fn the_next_store_has_ports_of_its_own_and_whoever_fills_it_may_write() {
        let machines = Machines::new(4);
        let place = machines.place(8, &[1, 2]);
        let settings = machines.settings(&place, Some(machines.id(4))).unwrap();
        assert_eq!(settings.listen.port(), PORT + 2);
        let cluster = settings.cluster.as_ref().unwrap();
        assert_eq!(cluster.listen.port(), PORT + 3);
        assert!(cluster.routes.iter().all(|route| route.port() == PORT + 3));
        assert_eq!(machines.roles(&settings), [true, true, false, true]);
        // It may be one of the holders.
        let settings = machines.settings(&place, Some(machines.id(2))).unwrap();
        assert_eq!(machines.roles(&settings), [true, true, false, false]);
        assert_eq!(settings.listen.port(), PORT + 2);
    }

    #[test]
    fn whoever_does_not_hold_the_store_has_no_settings_for_it() {
        let machines = Machines::new(3);
        for place in [machines.place(0, &[2, 3]), machines.place(0, &[])] {
            for filler in [None, Some(machines.id(1))] {
                let error = machines.settings(&place, filler).unwrap_err();
                assert!(matches!(error, NatsError::NotHolder), "{error}");
            }
        }
    }

    #[test]
    fn ports_of_the_two_stores_never_meet() {
        let server = (IpAddr::from([10, 0, 0, 1]), PORT);
        let ports = [StoreRole::Current, StoreRole::Next]
            .map(|role| [role.clients(server).1, role.routes(server).port()]);
        assert_eq!(ports.concat(), [PORT, PORT + 1, PORT + 2, PORT + 3]);
        // The last port is used again rather than one of the first.
        let last = (server.0, u16::MAX);
        assert_eq!(StoreRole::Next.routes(last).port(), u16::MAX);
    }
}
