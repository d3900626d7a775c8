//! Who of those that knock gets a connection: bounds for everybody, for each address, and for strangers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

/// Connections at a time: every machine of the largest network, and as many people.
pub(crate) const CONNECTIONS_MAX: usize = 400;
/// Connections at a time from addresses that have not been proven; after that, everybody has to prove theirs first.
const UNPROVEN_MAX: usize = 32;
/// Handshakes at a time from one address. A round of machines behind one address comes in within two round trips each;
/// whoever never goes on with them holds a twenty-fifth of all connections.
const HANDSHAKES_MAX: usize = 16;
/// Connections at a time without a certificate: however many strangers come, two thirds are left for members.
const STRANGERS_MAX: usize = 128;

/// What is held of each kind.
#[derive(Debug, Default)]
struct Held {
    connections: usize,
    strangers: usize,
    handshakes: BTreeMap<IpAddr, usize>,
}

/// The door of one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission(Rc<RefCell<Held>>);

/// Why somebody stays outside for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// There is no room for anybody.
    Connections,
    /// This address has begun enough.
    Handshakes,
}

/// What is done with somebody who knocks.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Go on.
    Welcome(Handshake),
    /// Come back and show that the address is yours.
    Prove,
    /// Come back later.
    Refuse(Full),
}

/// Held while a connection is being made, and given up for a [`Place`].
#[derive(Debug)]
pub(crate) struct Handshake {
    place: Option<Place>,
    held: Rc<RefCell<Held>>,
    address: IpAddr,
}

/// Held while there is a connection.
#[derive(Debug)]
pub(crate) struct Place(Rc<RefCell<Held>>);

/// Held while a stranger has a connection.
#[derive(Debug)]
pub(crate) struct StrangersPlace(Rc<RefCell<Held>>);

impl Admission {
    /// Somebody knocks, from an address that is proven or not.
    pub(crate) fn knock(&self, address: IpAddr, proven: bool) -> Verdict {
        let address = one_holder(address);
        let mut held = self.0.borrow_mut();
        if held.connections >= CONNECTIONS_MAX {
            return Verdict::Refuse(Full::Connections);
        }
        if held.connections >= UNPROVEN_MAX && !proven {
            return Verdict::Prove;
        }
        let begun = held.handshakes.entry(address).or_default();
        if *begun >= HANDSHAKES_MAX {
            return Verdict::Refuse(Full::Handshakes);
        }
        *begun += 1;
        held.connections += 1;
        Verdict::Welcome(Handshake {
            place: Some(Place(Rc::clone(&self.0))),
            held: Rc::clone(&self.0),
            address,
        })
    }

    /// Room for a stranger; none if there are enough.
    pub(crate) fn stranger(&self) -> Option<StrangersPlace> {
        let mut held = self.0.borrow_mut();
        if held.strangers >= STRANGERS_MAX {
            return None;
        }
        held.strangers += 1;
        Some(StrangersPlace(Rc::clone(&self.0)))
    }
}

impl Handshake {
    /// It is over, and there is a connection.
    pub(crate) fn done(mut self) -> Option<Place> {
        self.place.take()
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut held = self.held.borrow_mut();
        if let Some(begun) = held.handshakes.get_mut(&self.address) {
            *begun -= 1;
            if *begun == 0 {
                held.handshakes.remove(&self.address);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.borrow_mut().connections -= 1;
    }
}

impl Drop for StrangersPlace {
    fn drop(&mut self) {
        self.0.borrow_mut().strangers -= 1;
    }
}

/// An address as far as one holder has it: the first 64 bits of IPv6.
fn one_holder(address: IpAddr) -> IpAddr {
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

    fn welcome(verdict: Verdict) -> Handshake {
        match verdict {
            Verdict::Welcome(handshake) => handshake,
            other @ (Verdict::Prove | Verdict::Refuse(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_address_does_not_take_all_handshakes_and_gets_them_back() {
        let door = Admission::default();
        let mut begun: Vec<_> = (0..HANDSHAKES_MAX)
            .map(|_| welcome(door.knock(address(1), false)))
            .collect();
        let another = door.knock(address(1), true);
        assert!(matches!(another, Verdict::Refuse(Full::Handshakes)));
        let place = begun.pop().unwrap().done().unwrap();
        drop(welcome(door.knock(address(1), true)));
        let _other = welcome(door.knock(address(2), true));
        drop((begun, place));
        assert_eq!(door.0.borrow().connections, 1);
        assert_eq!(door.0.borrow().handshakes.len(), 1);
    }

    #[test]
    fn past_the_first_addresses_have_to_be_proven_and_past_the_last_nobody_comes_in() {
        let door = Admission::default();
        let mut places = Vec::new();
        for number in 0..CONNECTIONS_MAX {
            if number >= UNPROVEN_MAX {
                assert!(matches!(door.knock(address(number), false), Verdict::Prove));
            }
            let proven = number >= UNPROVEN_MAX;
            places.push(welcome(door.knock(address(number), proven)).done());
        }
        let last = door.knock(address(CONNECTIONS_MAX), true);
        assert!(matches!(last, Verdict::Refuse(Full::Connections)));
        places.pop();
        welcome(door.knock(address(CONNECTIONS_MAX), true));
    }

    #[test]
    fn strangers_leave_room_for_members() {
        const { assert!(STRANGERS_MAX * 3 < CONNECTIONS_MAX) };
        let door = Admission::default();
        let mut strangers: Vec<_> = (0..STRANGERS_MAX).map(|_| door.stranger()).collect();
        assert!(strangers.iter().all(Option::is_some) && door.stranger().is_none());
        strangers.pop();
        assert!(door.stranger().is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let holder = |text: &str| one_holder(text.parse().unwrap());
        assert_eq!(holder("2001:db8::1"), holder("2001:db8::ffff:2"));
        assert_ne!(holder("2001:db8::1"), holder("2001:db8:0:1::1"));
        assert_eq!(holder("::ffff:192.0.2.1"), holder("192.0.2.1"));
    }
}
