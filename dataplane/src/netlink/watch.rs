//! News of one interface.
//!
//! The kernel's notifications only say that something may have changed; what it is like is then read anew. So losing
//! some is no harm, and what is queued is bounded by the socket's buffer.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use tokio::time::{Instant, sleep_until};

use super::error::NetlinkError;
use super::link_state;
use super::socket::Netlink;

/// The new state of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkChange {
    /// The MTU of the interface.
    pub mtu: u32,
    /// The smallest MTU that a route through it has, if any has one.
    pub smallest_route_mtu: Option<u32>,
    /// True if it is set up.
    pub up: bool,
}

/// Watches one interface; made by [`Link::watch`](super::Link::watch).
#[derive(Debug)]
pub struct LinkWatch {
    netlink: Netlink,
    index: u32,
    notifications: Notifications,
    /// The time at which to read the interface's state; `None` while there is no news.
    due: Option<Instant>,
    last: Option<LinkChange>,
}

/// The wait for more news after the first: a program that sets up an interface sets several things, and a routing
/// daemon many routes. Short enough that hardly a packet is padded for an MTU that is no longer.
const COALESCE: Duration = Duration::from_millis(10);

/// A notification is a message of one link or route; a route with very many next hops may not fit, and counts as news.
const NOTIFICATION_MAX: usize = 32 << 10;

impl LinkWatch {
    pub(super) fn open(netlink: Netlink, index: u32) -> Result<Self, NetlinkError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let notifications =
            Notifications::open(&groups, Some(index)).map_err(NetlinkError::Open)?;
        Ok(Self {
            netlink,
            index,
            notifications,
            due: Some(Instant::now()),
            last: None,
        })
    }

    /// The interface's state now, when asked for the first time; then its next state, once it has changed. `None`
    /// when it is gone: removed, or moved to another namespace, where its file descriptor goes on working.
    ///
    /// Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// [`NetlinkError`]; asking again is worth a try.
    pub async fn changed(&mut self) -> Result<Option<LinkChange>, NetlinkError> {
        loop {
            let due = match self.due {
                Some(due) => due,
                None => {
                    self.notifications.news().await?;
                    *self.due.insert(Instant::now() + COALESCE)
                }
            };
            sleep_until(due).await;
            // What is notified from here on may be news to what is read below, and is left for the next turn.
            self.notifications.forget();
            let change = self.read().await?;
            self.due = None;
            if change.is_none() || change != self.last {
                self.last = change;
                return Ok(change);
            }
        }
    }

    async fn read(&self) -> Result<Option<LinkChange>, NetlinkError> {
        let Some(state) = link_state::state(&self.netlink, self.index).await? else {
            return Ok(None);
        };
        let smallest_route_mtu = link_state::smallest_route_mtu(&self.netlink, self.index).await?;
        Ok(Some(LinkChange {
            mtu: state.mtu,
            smallest_route_mtu,
            up: state.up,
        }))
    }
}

/// Watches everything that decides from which address the host speaks to another: links, addresses, routes.
#[derive(Debug)]
pub struct HostWatch(Notifications);

impl HostWatch {
    /// Begins to listen, in the namespace of the caller.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        Notifications::open(&groups, None)
            .map(Self)
            .map_err(NetlinkError::Open)
    }

    /// Waits for a change, and until no more of it is to be expected.
    ///
    /// # Errors
    /// [`NetlinkError`]; asking again is worth a try.
    pub async fn changed(&mut self) -> Result<(), NetlinkError> {
        self.0.news().await?;
        sleep_until(Instant::now() + COALESCE).await;
        self.0.forget();
        Ok(())
    }
}

/// The socket that hears of links, addresses and routes.
struct Notifications {
    socket: TokioSocket,
    /// Of the one interface that is of interest.
    index: Option<u32>,
    buffer: Box<[u8]>,
}

impl Notifications {
    fn open(groups: &[MulticastGroup], index: Option<u32>) -> io::Result<Self> {
        let groups = groups
            .iter()
            .fold(0, |mask, &group| mask | 1 << (group as u32 - 1));
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Self {
            socket,
            index,
            buffer: vec![0; NOTIFICATION_MAX].into(),
        })
    }

    /// Waits for a notification that may be about the interface.
    async fn news(&mut self) -> Result<(), NetlinkError> {
        loop {
            let mut space = &mut self.buffer[..];
            match poll_fn(|context| self.socket.poll_recv(context, &mut space)).await {
                Ok(()) => {}
                // Some were lost: there may be news among them.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(source) => {
                    let action = "hear of links and routes".to_owned();
                    return Err(NetlinkError::Refused { action, source });
                }
            }
            let left = space.len();
            let received = self.buffer.len() - left;
            if self
                .index
                .is_none_or(|index| concerns(index, &self.buffer[..received]))
            {
                return Ok(());
            }
        }
    }

    /// Drops what is queued.
    fn forget(&mut self) {
        /// More than the socket's buffer holds, so that a flood is left to the next turn.
        const AT_MOST: usize = 1024;
        for _ in 0..AT_MOST {
            let mut space = &mut self.buffer[..];
            match self
                .socket
                .socket_ref()
                .recv(&mut space, libc::MSG_DONTWAIT)
            {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(_) => return,
            }
        }
    }
}

impl std::fmt::Debug for Notifications {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifications")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// True if a notification may be about the interface. One that is not understood may be.
fn concerns(index: u32, datagram: &[u8]) -> bool {
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) else {
        return true;
    };
    let NetlinkPayload::InnerMessage(message) = message.payload else {
        return true;
    };
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            link.header.index == index
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            leads_through(&route, index)
        }
        _ => true,
    }
}

/// True if a route leads through the interface. A route that names no interface at all may, by way of a next hop
/// object.
fn leads_through(route: &RouteMessage, index: u32) -> bool {
    let mut named = false;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) if *oif == index => return true,
            RouteAttribute::Oif(_) => named = true,
            RouteAttribute::MultiPath(hops)
                if hops.iter().any(|hop| hop.interface_index == index) =>
            {
                return true;
            }
            RouteAttribute::MultiPath(_) => named = true,
            _ => {}
        }
    }
    !named
}

#[cfg(test)]
mod tests;
