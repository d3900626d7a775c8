//! From machines to WireGuard peers: a pure function, and what has to change to get there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ployz_api::MachineId;
use ployz_engine::{AllowedIpChange, PeerUpdate, PublicKey};

use crate::machines::MachineRecord;

/// NAT and firewalls forget a silent flow after 30 s at the earliest. It also keeps sessions, so that the age of a
/// handshake tells whether a machine is reachable.
const KEEPALIVE_SECS: u16 = 25;

/// The planned state of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPlan {
    /// The best first.
    pub(crate) endpoints: Vec<SocketAddr>,
    pub(crate) allowed_ips: Vec<IpNet>,
}

impl PeerPlan {
    fn first(&self) -> Option<SocketAddr> {
        self.endpoints.first().copied()
    }
}

/// The peers that follow from these machines for one of them. A record whose key cannot be read has no peer.
pub fn plan<'a>(
    own: MachineId,
    machines: impl Iterator<Item = &'a MachineRecord>,
) -> BTreeMap<PublicKey, PeerPlan> {
    machines
        .filter(|machine| machine.id != own)
        .filter_map(|machine| {
            let key = PublicKey::from_base64(&machine.wireguard_key).ok()?;
            let peer = PeerPlan {
                endpoints: machine.endpoints.clone(),
                allowed_ips: allowed_ips(machine),
            };
            Some((key, peer))
        })
        .collect()
}

fn allowed_ips(machine: &MachineRecord) -> Vec<IpNet> {
    let subnet = machine
        .subnet
        .unwrap_or_else(|| Ipv4Net::from(machine.overlay_ip));
    vec![subnet.into(), Ipv6Net::from(machine.overlay_ip6).into()]
}

/// The changes from one plan to another. An endpoint is given only when it is new: the data plane follows a peer that
/// roams, and repeating a former endpoint would mislead it.
pub fn changes(
    before: &BTreeMap<PublicKey, PeerPlan>,
    after: &BTreeMap<PublicKey, PeerPlan>,
) -> Vec<PeerUpdate> {
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let removals = gone.map(|key| PeerUpdate {
        remove: true,
        ..PeerUpdate::new(*key)
    });
    let changed = after
        .iter()
        .filter(|(key, peer)| before.get(*key) != Some(*peer));
    let updates = changed.map(|(key, peer)| {
        let known = before.get(key).and_then(PeerPlan::first);
        PeerUpdate {
            endpoint: peer.first().filter(|endpoint| known != Some(*endpoint)),
            persistent_keepalive_secs: Some(KEEPALIVE_SECS),
            replace_allowed_ips: true,
            allowed_ips: peer
                .allowed_ips
                .iter()
                .copied()
                .map(AllowedIpChange::Add)
                .collect(),
            ..PeerUpdate::new(*key)
        }
    });
    removals.chain(updates).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(endpoint: u16, prefix: u8) -> PeerPlan {
        PeerPlan {
            endpoints: vec![SocketAddr::from(([192, 0, 2, 1], endpoint))],
            allowed_ips: vec![format!("10.101.{prefix}.0/24").parse().unwrap()],
        }
    }

    fn key(number: u8) -> PublicKey {
        PublicKey::from_bytes([number; 32])
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        let plan = BTreeMap::from([(key(1), peer(1, 1))]);
        assert!(changes(&plan, &plan).is_empty());
    }

    #[test]
    fn an_endpoint_is_said_only_when_it_is_news() {
        let before = BTreeMap::from([(key(1), peer(1, 1))]);
        let moved = changes(&before, &BTreeMap::from([(key(1), peer(2, 1))]));
        assert_eq!(moved[0].endpoint, peer(2, 1).first());
        let renumbered = changes(&before, &BTreeMap::from([(key(1), peer(1, 2))]));
        assert_eq!(renumbered[0].endpoint, None);
        assert!(renumbered[0].replace_allowed_ips);
    }

    proptest! {
        /// The twin: an interface that is nothing but a map.
        #[test]
        fn changes_lead_from_any_plan_to_any_other(
            before in prop::collection::btree_map(0_u8..6, (0_u16..3, 0_u8..3), 0..6),
            after in prop::collection::btree_map(0_u8..6, (0_u16..3, 0_u8..3), 0..6),
        ) {
            let plan = |map: BTreeMap<u8, (u16, u8)>| -> BTreeMap<PublicKey, PeerPlan> {
                map.into_iter().map(|(k, (e, p))| (key(k), peer(e, p))).collect()
            };
            let (before, after) = (plan(before), plan(after));
            let mut interface = before.clone();
            for update in changes(&before, &after) {
                if update.remove {
                    interface.remove(&update.public_key);
                    continue;
                }
                let held = interface
                    .entry(update.public_key)
                    .or_insert(PeerPlan { endpoints: Vec::new(), allowed_ips: Vec::new() });
                if let Some(endpoint) = update.endpoint {
                    held.endpoints = vec![endpoint];
                }
                held.allowed_ips = update
                    .allowed_ips
                    .iter()
                    .map(|change| match change {
                        AllowedIpChange::Add(net) | AllowedIpChange::Remove(net) => *net,
                    })
                    .collect();
            }
            prop_assert_eq!(interface, after);
        }
    }
}
