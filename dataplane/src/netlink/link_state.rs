//! The state of an interface, and of the routes through it, as the kernel has it.

use futures_util::{StreamExt, TryStreamExt};
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric};

use super::error::{NetlinkError, errno, failed};
use super::socket::{Netlink, first};

/// The state of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkState {
    pub(super) mtu: u32,
    pub(super) up: bool,
}

/// Reads the state of an interface; `None` if there is none of this index.
pub(super) async fn state(
    netlink: &Netlink,
    index: u32,
) -> Result<Option<LinkState>, NetlinkError> {
    let action = || format!("read interface {index}");
    let message = match first(netlink.handle.link().get().match_index(index).execute()).await {
        Ok(message) => message,
        Err(error) if errno(&error) == Some(Errno::ENODEV) => return Ok(None),
        Err(error) => return Err(failed(action(), &error)),
    };
    let mtu = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
    let Some(mtu) = mtu else {
        return Err(NetlinkError::Unanswered {
            action: action(),
            cause: "it has no MTU".to_owned(),
        });
    };
    Ok(Some(LinkState {
        mtu,
        up: message.header.flags.contains(LinkFlags::Up),
    }))
}

/// The smallest MTU that a route through the interface has, if any has one.
pub(super) async fn smallest_route_mtu(
    netlink: &Netlink,
    index: u32,
) -> Result<Option<u32>, NetlinkError> {
    let mut smallest: Option<u32> = None;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let routes = match routes(netlink, index, family).await {
            Ok(routes) => routes,
            // The interface has just gone, or the kernel has no IPv6.
            Err(error) if matches!(errno(&error), Some(Errno::ENODEV | Errno::EOPNOTSUPP)) => {
                continue;
            }
            Err(error) => {
                return Err(failed(
                    format!("read the routes through interface {index}"),
                    &error,
                ));
            }
        };
        smallest = routes.iter().filter_map(mtu_of).chain(smallest).min();
    }
    Ok(smallest)
}

/// The routes of all tables through an interface.
pub(super) async fn routes(
    netlink: &Netlink,
    index: u32,
    family: AddressFamily,
) -> Result<Vec<RouteMessage>, rtnetlink::Error> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.attributes.push(RouteAttribute::Oif(index));
    netlink
        .handle
        .route()
        .get(request)
        .execute()
        .boxed()
        .try_collect()
        .await
}

fn mtu_of(route: &RouteMessage) -> Option<u32> {
    let metrics = route
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            RouteAttribute::Metrics(metrics) => Some(metrics),
            _ => None,
        });
    // 0 is what the kernel has for "not set".
    metrics.flatten().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
        _ => None,
    })
}
