//! A network interface and its settings.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope,
};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};

use super::error::{NetlinkError, errno, failed};
use super::link_state::{routes, state};
use super::socket::{Netlink, first};
use super::watch::LinkWatch;

/// A network interface of this namespace. It keeps its index when it is renamed.
#[derive(Clone, Debug)]
pub struct Link {
    netlink: Netlink,
    index: u32,
    name: String,
}

impl Link {
    /// Looks an interface up.
    ///
    /// # Errors
    /// [`NetlinkError::NoSuchLink`] and others.
    pub async fn by_name(netlink: &Netlink, name: &str) -> Result<Self, NetlinkError> {
        let request = netlink.handle.link().get().match_name(name);
        match first(request.execute()).await {
            Ok(message) => Ok(Self {
                netlink: netlink.clone(),
                index: message.header.index,
                name: name.to_owned(),
            }),
            Err(error) if errno(&error) == Some(Errno::ENODEV) => {
                Err(NetlinkError::NoSuchLink(name.to_owned()))
            }
            Err(error) => Err(failed(format!("look up {name}"), &error)),
        }
    }

    /// Its number, by which the kernel knows it.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Its name when it was looked up.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The MTU that the kernel has for it.
    ///
    /// # Errors
    /// [`NetlinkError`], [`NetlinkError::NoSuchLink`] when it has gone.
    pub async fn mtu(&self) -> Result<u32, NetlinkError> {
        let state = state(&self.netlink, self.index).await?;
        state
            .map(|state| state.mtu)
            .ok_or_else(|| NetlinkError::NoSuchLink(self.name.clone()))
    }

    /// Sets the MTU.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub async fn set_mtu(&self, mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(self.index).mtu(mtu).build();
        self.change(message)
            .await
            .map_err(|e| failed(format!("set the MTU of {} to {mtu}", self.name), &e))
    }

    /// Sets it up, after which it has routes.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub async fn set_up(&self) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(self.index).up().build();
        self.change(message)
            .await
            .map_err(|e| failed(format!("set {} up", self.name), &e))
    }

    /// Gives it an address, and with it the route to the address's network. One that it has is fine.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub async fn add_address(&self, address: IpNet) -> Result<(), NetlinkError> {
        let handle = self.netlink.handle.address();
        let mut request = handle.add(self.index, address.addr(), address.prefix_len());
        // There is nothing to broadcast to on a tunnel.
        let attributes = &mut request.message_mut().attributes;
        attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
        match request.execute().await {
            Err(error) if errno(&error) != Some(Errno::EEXIST) => Err(failed(
                format!("give {} the address {address}", self.name),
                &error,
            )),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Takes an address from it. One that it does not have is fine.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub async fn remove_address(&self, address: IpNet) -> Result<(), NetlinkError> {
        let handle = self.netlink.handle.address();
        // The message that adds an address is the one that names it.
        let message = handle
            .add(self.index, address.addr(), address.prefix_len())
            .message_mut()
            .clone();
        match handle.del(message).execute().await {
            Err(error) if errno(&error) != Some(Errno::EADDRNOTAVAIL) => Err(failed(
                format!("take the address {address} from {}", self.name),
                &error,
            )),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Routes a prefix through it. One that is routed through it is fine.
    ///
    /// # Errors
    /// [`NetlinkError::RouteTaken`] when the prefix is routed elsewhere, and others.
    pub async fn add_route(&self, prefix: IpNet) -> Result<(), NetlinkError> {
        let prefix = prefix.trunc();
        let action = || format!("route {prefix} through {}", self.name);
        let request = self
            .netlink
            .handle
            .route()
            .add(route_to(prefix, self.index));
        match request.execute().await {
            Ok(()) => Ok(()),
            Err(error) if errno(&error) == Some(Errno::EEXIST) => {
                let family = family_of(prefix);
                let routes = routes(&self.netlink, self.index, family)
                    .await
                    .map_err(|e| failed(action(), &e))?;
                if routes.iter().any(|route| leads_to(route, prefix)) {
                    return Ok(());
                }
                Err(NetlinkError::RouteTaken {
                    prefix,
                    link: self.name.clone(),
                })
            }
            Err(error) => Err(failed(action(), &error)),
        }
    }

    /// Watches its MTU, the MTUs of the routes through it, and whether it is up.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn watch(&self) -> Result<LinkWatch, NetlinkError> {
        LinkWatch::open(self.netlink.clone(), self.index)
    }

    async fn change(&self, message: LinkMessage) -> Result<(), rtnetlink::Error> {
        self.netlink.handle.link().change(message).execute().await
    }
}

/// As `ip route add PREFIX dev LINK proto static` makes it.
fn route_to(prefix: IpNet, index: u32) -> RouteMessage {
    match prefix {
        IpNet::V4(prefix) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(prefix.addr(), prefix.prefix_len())
            .scope(RouteScope::Link)
            .output_interface(index)
            .build(),
        IpNet::V6(prefix) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
            .destination_prefix(prefix.addr(), prefix.prefix_len())
            .output_interface(index)
            .build(),
    }
}

fn leads_to(route: &RouteMessage, prefix: IpNet) -> bool {
    // A default route says no destination.
    let destination = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        });
    route.header.table == RouteHeader::RT_TABLE_MAIN
        && route.header.destination_prefix_length == prefix.prefix_len()
        && (prefix.prefix_len() == 0 || destination == Some(prefix.addr()))
}

fn family_of(prefix: IpNet) -> AddressFamily {
    match prefix {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    }
}
