use rtnetlink::packet_core::{NLMSG_DONE, NetlinkHeader};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::RouteNextHop;

use super::*;

const OURS: u32 = 7;
const OTHER: u32 = 8;

#[test]
fn links_concern_us_by_index() {
    for (index, expected) in [(OURS, true), (OTHER, false)] {
        let mut link = LinkMessage::default();
        link.header.index = index;
        assert_eq!(
            concerns(OURS, &datagram(RouteNetlinkMessage::NewLink(link.clone()))),
            expected
        );
        assert_eq!(
            concerns(OURS, &datagram(RouteNetlinkMessage::DelLink(link))),
            expected
        );
    }
}

#[test]
fn routes_concern_us_by_where_they_lead() {
    let hop = |interface_index| {
        let mut hop = RouteNextHop::default();
        hop.interface_index = interface_index;
        hop
    };
    let cases = [
        (vec![RouteAttribute::Oif(OURS)], true),
        (vec![RouteAttribute::Oif(OTHER)], false),
        (
            vec![RouteAttribute::MultiPath(vec![hop(OTHER), hop(OURS)])],
            true,
        ),
        (vec![RouteAttribute::MultiPath(vec![hop(OTHER)])], false),
        (vec![RouteAttribute::NhId(3)], true),
        (vec![], true),
    ];
    for (attributes, expected) in cases {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.attributes = attributes.clone();
        assert_eq!(
            concerns(
                OURS,
                &datagram(RouteNetlinkMessage::NewRoute(route.clone()))
            ),
            expected,
            "{attributes:?}"
        );
        assert_eq!(
            concerns(OURS, &datagram(RouteNetlinkMessage::DelRoute(route))),
            expected,
            "{attributes:?}"
        );
    }
}

#[test]
fn what_is_not_understood_may_concern_us() {
    for bytes in [&b""[..], &[0; 3], &[0xff; 64]] {
        assert!(concerns(OURS, bytes));
    }
    let mut done = datagram(RouteNetlinkMessage::NewLink(LinkMessage::default()));
    done[4..6].copy_from_slice(&NLMSG_DONE.to_ne_bytes());
    assert!(concerns(OURS, &done));
}

fn datagram(message: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
