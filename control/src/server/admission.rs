//! Admission: the clients that get a connection, and what each of them may hold.
//!
//! A client is an address until its handshake is over, and the holder of a certificate from then on:
//!
//! ```text
//!   admit(address) ─▶ Handshake ─▶ connect(caller, address) ─▶ Permit ─┬─ follow(caller)   ─▶ Permit
//!                                                                     └─ forward(caller)  ─▶ Permit
//! ```
//!
//! Each role has connections of its own, so that no number of readers leaves an admin, a machine or a joiner outside.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

use ployz_api::{CertificateName, LOCAL_NETWORK, MachineId, Role};

/// Connections at a time: every machine of the largest network, half as many joiners, and a hundred people.
pub(crate) const CONNECTIONS_MAX: usize = 400;
/// Handshakes at a time from all addresses: a round of every machine and every person. None lasts longer than 5 s.
const HANDSHAKES_MAX: usize = 400;
/// Clients at a time from addresses that have not been validated; after that, every address is validated first.
const UNVALIDATED_MAX: usize = 32;
/// Handshakes at a time from one address. A round of machines behind one address comes in within two round trips each;
/// an address that never goes on with them holds a twenty-fifth of all.
const ADDRESS_HANDSHAKES_MAX: usize = 16;
/// Followers of the events at a time: each has a subscription of the store's news.
const FOLLOWERS_MAX: usize = 16;
/// Of these, the ones that are no admins: four are left for admins.
const COMMON_FOLLOWERS_MAX: usize = 12;
/// Followers of one holder.
const HOLDER_FOLLOWERS_MAX: usize = 4;
/// Streams that are forwarded at a time: each has a connection to another machine.
const FORWARDS_MAX: usize = 64;
/// Of these, the ones of callers that are no admins.
const COMMON_FORWARDS_MAX: usize = 48;
/// Forwarded streams of one holder.
const HOLDER_FORWARDS_MAX: usize = 4;
/// Forwarded streams to one machine: half of the connections that it lets this one have.
const DESTINATION_FORWARDS_MAX: usize = bounds(Role::Machine).holder / 2;

/// The connections that a role may have at a time.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// In all.
    all: usize,
    /// Of one holder of a certificate.
    holder: usize,
    /// From one address.
    address: usize,
}

const fn bounds(role: Role) -> Bounds {
    match role {
        // Every machine of the largest network. A machine asks a few things at a time, and forwards others.
        Role::Machine => Bounds {
            all: 200,
            holder: 16,
            address: 100,
        },
        // A command has one connection, for as long as it runs.
        Role::Admin | Role::Operator | Role::Reader => Bounds {
            all: 32,
            holder: 8,
            address: 16,
        },
        // A joiner has one for less than a second, and shows no certificate.
        Role::Stranger => Bounds {
            all: 104,
            holder: 104,
            address: 32,
        },
    }
}

/// The loopback server has no other client than root of its host.
const ROOT: Bounds = Bounds {
    all: CONNECTIONS_MAX,
    holder: CONNECTIONS_MAX,
    address: CONNECTIONS_MAX,
};

const _: () = assert!(
    bounds(Role::Machine).all
        + bounds(Role::Admin).all
        + bounds(Role::Operator).all
        + bounds(Role::Reader).all
        + bounds(Role::Stranger).all
        == CONNECTIONS_MAX
);

/// What is counted. Each count has a bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Count {
    Handshakes,
    HandshakesFrom(IpAddr),
    Connections,
    ConnectionsOf(&'static str),
    ConnectionsOfHolder(&'static str, String),
    ConnectionsFrom(&'static str, IpAddr),
    Followers,
    CommonFollowers,
    FollowersOf(String),
    Forwards,
    CommonForwards,
    ForwardsOf(String),
    ForwardsTo(MachineId),
}

impl Count {
    /// The cause under which a refusal is counted in `status`.
    fn cause(&self) -> &'static str {
        match self {
            Self::HandshakesFrom(_) => "handshakes",
            Self::Handshakes | Self::Connections => "connections",
            Self::ConnectionsOf("stranger") => "strangers",
            Self::ConnectionsOf(_) => "role",
            Self::ConnectionsOfHolder(..) => "holder",
            Self::ConnectionsFrom(..) => "address",
            Self::Followers | Self::CommonFollowers | Self::FollowersOf(_) => "followers",
            Self::Forwards | Self::CommonForwards | Self::ForwardsOf(_) | Self::ForwardsTo(_) => {
                "forwards"
            }
        }
    }
}

type Counts = BTreeMap<Count, usize>;

/// The admission of one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission(Rc<RefCell<Counts>>);

/// There is no room: a bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// The bound, by the name under which refusals are counted.
    pub(crate) cause: &'static str,
    pub(crate) max: usize,
}

/// What is done with a client that has no connection yet.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The handshake begins.
    Accept(Permit),
    /// The client has to show that the address is its own.
    Validate,
    /// The client has to come back later.
    Refuse(Full),
}

/// Room that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    counts: Rc<RefCell<Counts>>,
    held: Vec<Count>,
}

impl Admission {
    /// Decides about a client that begins a handshake, from an address that is validated or not.
    pub(crate) fn admit(&self, address: IpAddr, validated: bool) -> Decision {
        let present = self.count(&Count::Handshakes) + self.count(&Count::Connections);
        if present >= UNVALIDATED_MAX && !validated {
            return Decision::Validate;
        }
        let from = Count::HandshakesFrom(source_prefix(address));
        let wanted = vec![
            (Count::Handshakes, HANDSHAKES_MAX),
            (from, ADDRESS_HANDSHAKES_MAX),
        ];
        self.take(wanted)
            .map_or_else(Decision::Refuse, Decision::Accept)
    }

    /// Room for a connection whose handshake is over, or for a session that another machine forwards.
    pub(crate) fn connect(
        &self,
        caller: &CertificateName,
        address: IpAddr,
    ) -> Result<Permit, Full> {
        let bounds = if is_root(caller) {
            ROOT
        } else {
            bounds(caller.role)
        };
        let role = caller.role.name();
        let from = Count::ConnectionsFrom(role, source_prefix(address));
        let mut wanted = vec![
            (Count::Connections, usize::MAX),
            (Count::ConnectionsOf(role), bounds.all),
            (from, bounds.address),
        ];
        // Strangers are nobody: their address is all that tells them apart.
        if caller.role != Role::Stranger {
            let holder = Count::ConnectionsOfHolder(role, holder(caller));
            wanted.push((holder, bounds.holder));
        }
        self.take(wanted)
    }

    /// Room for a follower of the events.
    pub(crate) fn follow(&self, caller: &CertificateName) -> Result<Permit, Full> {
        let mut wanted = vec![(Count::Followers, FOLLOWERS_MAX)];
        if !is_root(caller) {
            wanted.push((Count::FollowersOf(holder(caller)), HOLDER_FOLLOWERS_MAX));
        }
        if caller.role != Role::Admin {
            wanted.push((Count::CommonFollowers, COMMON_FOLLOWERS_MAX));
        }
        self.take(wanted)
    }

    /// Room for a stream that is forwarded to a machine.
    pub(crate) fn forward(&self, caller: &CertificateName, to: MachineId) -> Result<Permit, Full> {
        let mut wanted = vec![
            (Count::Forwards, FORWARDS_MAX),
            (Count::ForwardsTo(to), DESTINATION_FORWARDS_MAX),
        ];
        if !is_root(caller) {
            wanted.push((Count::ForwardsOf(holder(caller)), HOLDER_FORWARDS_MAX));
        }
        if caller.role != Role::Admin {
            wanted.push((Count::CommonForwards, COMMON_FORWARDS_MAX));
        }
        self.take(wanted)
    }

    /// Takes all of it or nothing; fails with the first bound that is reached.
    fn take(&self, wanted: Vec<(Count, usize)>) -> Result<Permit, Full> {
        let full = wanted.iter().find(|(count, max)| self.count(count) >= *max);
        if let Some((count, max)) = full {
            return Err(Full {
                cause: count.cause(),
                max: *max,
            });
        }
        let held: Vec<Count> = wanted.into_iter().map(|(count, _)| count).collect();
        let mut counts = self.0.borrow_mut();
        for count in &held {
            *counts.entry(count.clone()).or_default() += 1;
        }
        Ok(Permit {
            counts: Rc::clone(&self.0),
            held,
        })
    }

    fn count(&self, count: &Count) -> usize {
        self.0.borrow().get(count).copied().unwrap_or_default()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.counts.borrow_mut();
        for count in &self.held {
            if let Some(held) = counts.get_mut(count) {
                *held -= 1;
                if *held == 0 {
                    counts.remove(count);
                }
            }
        }
    }
}

/// A certificate's holder, by role and subject: the DNS names that carry them have no case.
fn holder(caller: &CertificateName) -> String {
    format!("{} {}", caller.role.name(), caller.subject.to_lowercase())
}

/// Whether the caller is root of this host, on the loopback server.
fn is_root(caller: &CertificateName) -> bool {
    caller.network == LOCAL_NETWORK
}

/// The addresses that one client has together with this one: the first 64 bits of IPv6.
fn source_prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            Ipv6Addr::from(network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> IpAddr {
        let number = u32::try_from(number).unwrap();
        std::net::Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    fn caller(role: Role, number: usize) -> CertificateName {
        CertificateName {
            subject: format!("S{number}"),
            role,
            network: "n1".to_owned(),
        }
    }

    fn root() -> CertificateName {
        CertificateName {
            network: LOCAL_NETWORK.to_owned(),
            ..caller(Role::Admin, 0)
        }
    }

    fn accepted(decision: Decision) -> Permit {
        match decision {
            Decision::Accept(permit) => permit,
            other @ (Decision::Validate | Decision::Refuse(_)) => panic!("{other:?}"),
        }
    }

    fn refused(decision: &Decision, cause: &str) -> bool {
        matches!(decision, Decision::Refuse(full) if full.cause == cause)
    }

    /// How many are let in one after the other, and the bound that keeps the next one out.
    fn fill(
        mut take: impl FnMut(usize) -> Result<Permit, Full>,
        room: &mut Vec<Permit>,
    ) -> (usize, &'static str) {
        let before = room.len();
        loop {
            match take(room.len() - before) {
                Ok(permit) => room.push(permit),
                Err(full) => return (room.len() - before, full.cause),
            }
        }
    }

    #[test]
    fn one_address_does_not_take_all_handshakes_and_gets_them_back() {
        let admission = Admission::default();
        let mut begun: Vec<_> = (0..ADDRESS_HANDSHAKES_MAX)
            .map(|_| accepted(admission.admit(address(1), false)))
            .collect();
        let another = admission.admit(address(1), true);
        assert!(refused(&another, "handshakes"));
        begun.pop();
        drop(accepted(admission.admit(address(1), true)));
        let _other = accepted(admission.admit(address(2), true));
        drop(begun);
        assert_eq!(admission.0.borrow().len(), 2, "one handshake is left");
    }

    #[test]
    fn past_the_first_addresses_are_validated_and_past_the_last_all_are_refused() {
        let admission = Admission::default();
        let mut permits = Vec::new();
        for number in 0..HANDSHAKES_MAX {
            if number >= UNVALIDATED_MAX {
                assert!(matches!(
                    admission.admit(address(number), false),
                    Decision::Validate
                ));
            }
            let validated = number >= UNVALIDATED_MAX;
            permits.push(accepted(admission.admit(address(number), validated)));
        }
        let last = admission.admit(address(HANDSHAKES_MAX), true);
        assert!(refused(&last, "connections"));
        permits.pop();
        accepted(admission.admit(address(HANDSHAKES_MAX), true));
    }

    /// Each role with all of its connections taken, by one holder, from one address, and by many of either.
    #[test]
    fn a_connection_counts_for_its_role_its_holder_and_its_address() {
        for role in Role::ALL {
            let Bounds {
                all,
                holder,
                address: from_one,
            } = bounds(role);
            let is_stranger = role == Role::Stranger;
            for (holders, addresses, expected) in [
                (
                    1,
                    1_000,
                    if is_stranger {
                        (all, "strangers")
                    } else {
                        (holder, "holder")
                    },
                ),
                (1_000, 1, (from_one, "address")),
                (
                    1_000,
                    1_000,
                    (all, if is_stranger { "strangers" } else { "role" }),
                ),
            ] {
                let (admission, mut room) = (Admission::default(), Vec::new());
                let take = |number: usize| {
                    admission.connect(&caller(role, number % holders), address(number % addresses))
                };
                assert_eq!(
                    fill(take, &mut room),
                    expected,
                    "{role:?} {holders} {addresses}"
                );
                room.pop();
                let take = |number: usize| {
                    admission.connect(&caller(role, 2_000 + number), address(2_000 + number))
                };
                assert!(
                    fill(take, &mut room).0 >= 1,
                    "room that is given up is room"
                );
                drop(room);
                assert!(admission.0.borrow().is_empty());
            }
        }
    }

    /// All connections of four roles are taken, by as many holders as it takes: the fifth has all of its own.
    #[test]
    fn no_role_takes_the_room_of_another() {
        for spared in Role::ALL {
            let (admission, mut room) = (Admission::default(), Vec::new());
            for role in Role::ALL.into_iter().filter(|role| *role != spared) {
                let take = |number| admission.connect(&caller(role, number), address(number));
                fill(take, &mut room);
            }
            accepted(admission.admit(address(9_999), true));
            let take = |number| admission.connect(&caller(spared, number), address(number));
            assert_eq!(fill(take, &mut room).0, bounds(spared).all, "{spared:?}");
            assert_eq!(room.len(), CONNECTIONS_MAX);
        }
    }

    #[test]
    fn a_holder_is_the_same_in_either_case() {
        let admission = Admission::default();
        let (upper, mut lower) = (caller(Role::Reader, 1), caller(Role::Reader, 1));
        lower.subject = lower.subject.to_lowercase();
        let mut room = Vec::new();
        let take = |number: usize| {
            let caller = if number.is_multiple_of(2) {
                &upper
            } else {
                &lower
            };
            admission.connect(caller, address(number))
        };
        assert_eq!(
            fill(take, &mut room),
            (bounds(Role::Reader).holder, "holder")
        );
    }

    #[test]
    fn root_of_the_host_has_its_own_server_to_itself() {
        let (admission, mut room) = (Admission::default(), Vec::new());
        let take = |_| admission.connect(&root(), address(1));
        assert_eq!(fill(take, &mut room).0, CONNECTIONS_MAX);
        let take = |_| admission.follow(&root());
        assert_eq!(fill(take, &mut room).0, FOLLOWERS_MAX);
    }

    #[test]
    fn followers_and_forwards_are_bounded_by_holder_and_leave_room_for_admins() {
        let to = |number: usize| MachineId::new(1, number as u128);
        for (role, holders, followers, forwards) in [
            (Role::Reader, 1, HOLDER_FOLLOWERS_MAX, HOLDER_FORWARDS_MAX),
            (Role::Admin, 1, HOLDER_FOLLOWERS_MAX, HOLDER_FORWARDS_MAX),
            (
                Role::Reader,
                1_000,
                COMMON_FOLLOWERS_MAX,
                COMMON_FORWARDS_MAX,
            ),
            (Role::Admin, 1_000, FOLLOWERS_MAX, FORWARDS_MAX),
        ] {
            let (admission, mut room) = (Admission::default(), Vec::new());
            let take = |number: usize| admission.follow(&caller(role, number % holders));
            assert_eq!(fill(take, &mut room), (followers, "followers"), "{role:?}");
            let take =
                |number: usize| admission.forward(&caller(role, number % holders), to(number));
            assert_eq!(fill(take, &mut room), (forwards, "forwards"), "{role:?}");
            if role == Role::Reader {
                assert!(admission.follow(&caller(Role::Admin, 1)).is_ok());
                assert!(admission.forward(&caller(Role::Admin, 1), to(1)).is_ok());
            }
        }
        let (admission, mut room) = (Admission::default(), Vec::new());
        let take = |number| admission.forward(&caller(Role::Reader, number), to(1));
        let expected = (DESTINATION_FORWARDS_MAX, "forwards");
        assert_eq!(fill(take, &mut room), expected);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let holder = |text: &str| source_prefix(text.parse().unwrap());
        assert_eq!(holder("2001:db8::1"), holder("2001:db8::ffff:2"));
        assert_ne!(holder("2001:db8::1"), holder("2001:db8:0:1::1"));
        assert_eq!(holder("::ffff:192.0.2.1"), holder("192.0.2.1"));
    }
}
