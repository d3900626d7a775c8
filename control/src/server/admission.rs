//! Who of those that knock gets a connection: bounds for everybody, for each address, and for strangers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

/// Connections at a time: every machine of the largest network, and as many people.
pub(crate) const CONNECTIONS_MAX: usize = 400;
/// Connections at a time from addresses that have not been validated; after that, everybody has to prove theirs first.
const UNVALIDATED_MAX: usize = 32;
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

/// The admission of one server.
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
pub(crate) enum Decision {
    /// Go on.
    Accept(Handshake),
    /// Come back and show that the address is yours.
    Validate,
    /// Come back later.
    Refuse(Full),
}

/// Held while a connection is being made, and given up for a [`ConnectionPermit`].
#[derive(Debug)]
pub(crate) struct Handshake {
    permit: Option<ConnectionPermit>,
    held: Rc<RefCell<Held>>,
    address: IpAddr,
}

/// Held while there is a connection.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Rc<RefCell<Held>>);

/// Held while a stranger has a connection.
#[derive(Debug)]
pub(crate) struct StrangerPermit(Rc<RefCell<Held>>);

impl Admission {
    /// Somebody knocks, from an address that is validated or not.
    pub(crate) fn admit(&self, address: IpAddr, validated: bool) -> Decision {
        let address = source_prefix(address);
        let mut held = self.0.borrow_mut();
        if held.connections >= CONNECTIONS_MAX {
            return Decision::Refuse(Full::Connections);
        }
        if held.connections >= UNVALIDATED_MAX && !validated {
            return Decision::Validate;
        }
        let begun = held.handshakes.entry(address).or_default();
        if *begun >= HANDSHAKES_MAX {
            return Decision::Refuse(Full::Handshakes);
        }
        *begun += 1;
        held.connections += 1;
        Decision::Accept(Handshake {
            permit: Some(ConnectionPermit(Rc::clone(&self.0))),
            held: Rc::clone(&self.0),
            address,
        })
    }

    /// Room for a stranger; none if there are enough.
    pub(crate) fn stranger(&self) -> Option<StrangerPermit> {
        let mut held = self.0.borrow_mut();
        if held.strangers >= STRANGERS_MAX {
            return None;
        }
        held.strangers += 1;
        Some(StrangerPermit(Rc::clone(&self.0)))
    }
}

impl Handshake {
    /// It is over, and there is a connection.
    pub(crate) fn done(mut self) -> Option<ConnectionPermit> {
        self.permit.take()
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

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.borrow_mut().connections -= 1;
    }
}

impl Drop for StrangerPermit {
    fn drop(&mut self) {
        self.0.borrow_mut().strangers -= 1;
    }
}

/// An address as far as one holder has it: the first 64 bits of IPv6.
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

    fn accepted(decision: Decision) -> Handshake {
        match decision {
            Decision::Accept(handshake) => handshake,
            other @ (Decision::Validate | Decision::Refuse(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_address_does_not_take_all_handshakes_and_gets_them_back() {
        let admission = Admission::default();
        let mut begun: Vec<_> = (0..HANDSHAKES_MAX)
            .map(|_| accepted(admission.admit(address(1), false)))
            .collect();
        let another = admission.admit(address(1), true);
        assert!(matches!(another, Decision::Refuse(Full::Handshakes)));
        let permit = begun.pop().unwrap().done().unwrap();
        drop(accepted(admission.admit(address(1), true)));
        let _other = accepted(admission.admit(address(2), true));
        drop((begun, permit));
        assert_eq!(admission.0.borrow().connections, 1);
        assert_eq!(admission.0.borrow().handshakes.len(), 1);
    }

    #[test]
    fn past_the_first_addresses_are_validated_and_past_the_last_all_are_refused() {
        let admission = Admission::default();
        let mut permits = Vec::new();
        for number in 0..CONNECTIONS_MAX {
            if number >= UNVALIDATED_MAX {
                assert!(matches!(
                    admission.admit(address(number), false),
                    Decision::Validate
                ));
            }
            let validated = number >= UNVALIDATED_MAX;
            permits.push(accepted(admission.admit(address(number), validated)).done());
        }
        let last = admission.admit(address(CONNECTIONS_MAX), true);
        assert!(matches!(last, Decision::Refuse(Full::Connections)));
        permits.pop();
        accepted(admission.admit(address(CONNECTIONS_MAX), true));
    }

    #[test]
    fn strangers_leave_room_for_members() {
        const { assert!(STRANGERS_MAX * 3 < CONNECTIONS_MAX) };
        let admission = Admission::default();
        let mut strangers: Vec<_> = (0..STRANGERS_MAX).map(|_| admission.stranger()).collect();
        assert!(strangers.iter().all(Option::is_some) && admission.stranger().is_none());
        strangers.pop();
        assert!(admission.stranger().is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let holder = |text: &str| source_prefix(text.parse().unwrap());
        assert_eq!(holder("2001:db8::1"), holder("2001:db8::ffff:2"));
        assert_ne!(holder("2001:db8::1"), holder("2001:db8:0:1::1"));
        assert_eq!(holder("::ffff:192.0.2.1"), holder("192.0.2.1"));
    }
}
