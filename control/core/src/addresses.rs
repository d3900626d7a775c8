//! The overlay's addresses: subnet `n` of the cluster's, its first address for the machine, and an IPv6 one beside it.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use ployz_api::NetworkId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The default range: 256 machines with 254 addresses each.
pub const CLUSTER_CIDR_DEFAULT: &str = "10.101.0.0/16";
/// A /24 for each machine.
pub const SUBNET_PREFIX_LEN_DEFAULT: u8 = 24;

/// A machine, one address for it, and one for a workload need two bits.
const SUBNET_PREFIX_LEN_MAX: u8 = 30;
/// The subnet's number is 16 bits of the IPv6 address.
const SUBNET_BITS_MAX: u8 = 16;

/// How addresses are handed out in one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPlan {
    cluster_cidr: Ipv4Net,
    subnet_prefix_len: u8,
}

/// The addresses of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For the machine and its workloads.
    pub subnet: Ipv4Net,
    /// The machine's own, the first of its subnet.
    pub overlay_ip: Ipv4Addr,
    /// The machine's own.
    pub overlay_ip6: Ipv6Addr,
}

/// A plan that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Host bits in a network.
    #[error("{given} is an address, not a network: did you mean {meant}?")]
    HostBits {
        /// The given prefix.
        given: Ipv4Net,
        /// The prefix that was probably meant.
        meant: Ipv4Net,
    },
    /// Nothing fits.
    #[error(
        "subnets of /{subnet} do not fit into {cidr}: choose --subnet-prefix-len between {least} and {most}"
    )]
    SubnetLen {
        /// The requested prefix length.
        subnet: u8,
        /// The range that subnets have to fit into.
        cidr: Ipv4Net,
        /// The shortest prefix that fits.
        least: u8,
        /// The longest.
        most: u8,
    },
}

impl AddressPlan {
    /// A plan.
    ///
    /// # Errors
    /// [`AddressError`] if it could not give a single machine an address.
    pub fn new(cluster_cidr: Ipv4Net, subnet_prefix_len: u8) -> Result<Self, AddressError> {
        if cluster_cidr.trunc() != cluster_cidr {
            return Err(AddressError::HostBits {
                given: cluster_cidr,
                meant: cluster_cidr.trunc(),
            });
        }
        let least = cluster_cidr.prefix_len();
        let most = SUBNET_PREFIX_LEN_MAX.min(least.saturating_add(SUBNET_BITS_MAX));
        if !(least..=most).contains(&subnet_prefix_len) {
            return Err(AddressError::SubnetLen {
                subnet: subnet_prefix_len,
                cidr: cluster_cidr,
                least,
                most,
            });
        }
        Ok(Self {
            cluster_cidr,
            subnet_prefix_len,
        })
    }

    /// The range that subnets come from.
    pub const fn cluster_cidr(&self) -> Ipv4Net {
        self.cluster_cidr
    }

    /// How many machines it has room for.
    pub fn capacity(&self) -> u32 {
        1 << (self.subnet_prefix_len - self.cluster_cidr.prefix_len())
    }

    /// The addresses of machine number `index`; `None` when the network is full.
    pub fn addresses(&self, network: NetworkId, index: u32) -> Option<Addresses> {
        if index >= self.capacity() {
            return None;
        }
        // A shift by all 32 bits is that of the only subnet of everything.
        let shift = 32 - u32::from(self.subnet_prefix_len);
        let offset = index.checked_shl(shift).unwrap_or(0);
        let base = Ipv4Addr::from(u32::from(self.cluster_cidr.network()) + offset);
        Some(Addresses {
            subnet: Ipv4Net::new(base, self.subnet_prefix_len).ok()?,
            overlay_ip: Ipv4Addr::from(u32::from(base) + 1),
            overlay_ip6: overlay_ip6(network, index),
        })
    }
}

/// A unique local address (RFC 4193): 40 bits of the network's id for the /48, the machine's number for the /64.
fn overlay_ip6(network: NetworkId, index: u32) -> Ipv6Addr {
    let digest = Sha256::digest(network.to_string());
    let global = digest
        .iter()
        .take(5)
        .fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    Ipv6Addr::from(0xfd_u128 << 120 | global << 80 | u128::from(index) << 64 | 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_gives_256_machines_a_24_each() {
        let plan = AddressPlan::new(
            CLUSTER_CIDR_DEFAULT.parse().unwrap(),
            SUBNET_PREFIX_LEN_DEFAULT,
        )
        .unwrap();
        let network = NetworkId::new(1, 1);
        let second = plan.addresses(network, 1).unwrap();
        assert_eq!(second.subnet.to_string(), "10.101.1.0/24");
        assert_eq!(second.overlay_ip.to_string(), "10.101.1.1");
        assert_eq!(second.overlay_ip6.segments()[3..], [1, 0, 0, 0, 1]);
        assert_eq!(second.overlay_ip6.octets()[0], 0xfd);
        assert_eq!((plan.capacity(), plan.addresses(network, 256)), (256, None));
    }

    #[test]
    fn a_plan_without_room_says_what_would_have_some() {
        let error = AddressPlan::new("10.0.0.0/24".parse().unwrap(), 16).unwrap_err();
        assert!(error.to_string().contains("between 24 and 30"), "{error}");
        let error = AddressPlan::new("10.0.0.1/24".parse().unwrap(), 26).unwrap_err();
        assert!(
            error.to_string().contains("did you mean 10.0.0.0/24"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn subnets_lie_within_the_cluster_and_apart(
            base in any::<u32>(), cidr in 0_u8..=30, bits in 0_u8..=8,
        ) {
            let cidr = Ipv4Net::new(base.into(), cidr).unwrap().trunc();
            let Ok(plan) = AddressPlan::new(cidr, cidr.prefix_len() + bits) else {
                return Ok(());
            };
            let network = NetworkId::new(0, base.into());
            let mut seen = BTreeSet::new();
            for index in 0..plan.capacity() {
                let addresses = plan.addresses(network, index).unwrap();
                prop_assert!(cidr.contains(&addresses.subnet));
                prop_assert!(addresses.subnet.contains(&addresses.overlay_ip));
                prop_assert!(seen.insert((addresses.subnet.network(), addresses.overlay_ip6)));
            }
        }
    }
}
