//! The network that this machine is in, as it is stored. A machine with this file is a member, whether it takes part at
//! the moment or not.

use std::net::{IpAddr, SocketAddr};

use ipnet::Ipv4Net;
use ployz_api::{Name, NetworkId, NetworkState, StoreLocation};
use ployz_core::AddressPlan;
use serde::{Deserialize, Serialize};

/// The file of a [`Membership`].
pub(crate) const FILE: &str = "network.json";
/// The file of the network's authority, on machines that hold the store.
pub(crate) const AUTHORITY_FILE: &str = "ca.json";
/// The file of the last good view.
pub(crate) const VIEW_FILE: &str = "view.json";

/// Everything that a machine needs to enter its network without any other machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Membership {
    pub(crate) network_id: NetworkId,
    pub(crate) network: Name,
    pub(crate) name: Name,
    pub(crate) cluster_cidr: Ipv4Net,
    /// The plan by which addresses are assigned; only holders of the store have it.
    pub(crate) addresses: Option<AddressPlan>,
    pub(crate) overlay_ip: std::net::Ipv4Addr,
    pub(crate) overlay_ip6: std::net::Ipv6Addr,
    pub(crate) subnet: Ipv4Net,
    pub(crate) ca_pem: String,
    pub(crate) certificate_pem: String,
    /// The store's servers, by their addresses in the overlay.
    pub(crate) store: Vec<(IpAddr, u16)>,
    /// The number of stores before this one: after a change of holders, the higher number counts.
    #[serde(default)]
    pub(crate) store_epoch: u32,
    /// Whether to take part.
    #[serde(default)]
    pub(crate) state: NetworkState,
    /// WireGuard's port, if it is not the one that the daemon is started with.
    #[serde(default)]
    pub(crate) wg_port: Option<u16>,
    /// The endpoints of this machine's WireGuard, if the operator set them when the network was created.
    #[serde(default)]
    pub(crate) endpoints: Vec<SocketAddr>,
}

impl Membership {
    /// Whether this machine holds the store.
    pub(crate) const fn is_storage(&self) -> bool {
        self.addresses.is_some()
    }

    /// The store's location, as it is announced to other machines.
    pub(crate) fn store_location(&self) -> StoreLocation {
        StoreLocation {
            epoch: self.store_epoch,
            servers: self.store.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn earlier() -> serde_json::Value {
        serde_json::json!({
            "network_id": NetworkId::new(1, 1), "network": "acme", "name": "m1",
            "cluster_cidr": "10.0.0.0/8", "addresses": null,
            "overlay_ip": "10.0.1.1", "overlay_ip6": "fd00::1", "subnet": "10.0.1.0/24",
            "ca_pem": "", "certificate_pem": "", "store": [["10.0.0.1", 4222]],
        })
    }

    #[test]
    fn a_file_of_an_earlier_version_is_a_membership_that_takes_part() {
        let membership: Membership = serde_json::from_value(earlier()).unwrap();
        assert_eq!(
            (membership.state, membership.store_epoch),
            (NetworkState::Running, 0)
        );
        assert!(!membership.is_storage() && membership.endpoints.is_empty());
        let store = membership.store_location();
        assert_eq!((store.epoch, store.servers), (0, membership.store.clone()));
        let saved = serde_json::to_value(&membership).unwrap();
        let read: Membership = serde_json::from_value(saved.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), saved);
    }

    /// What it does not know, it would drop when it writes the file again.
    #[test]
    fn a_file_of_a_later_version_is_refused() {
        let mut later = earlier();
        later["later"] = 1.into();
        let error = serde_json::from_value::<Membership>(later)
            .unwrap_err()
            .to_string();
        assert!(error.contains("later"), "{error}");
    }
}
