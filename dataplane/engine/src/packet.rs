//! The head of an inner IP packet: as much of it as crypto-routing needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::ecn::Ecn;

/// What is read from an IPv4 (RFC 791) or IPv6 (RFC 8200) header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketHead {
    /// Who sent it.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// Congestion bits.
    pub ecn: Ecn,
}

const IPV4_HEADER_LEN_MIN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const PROTOCOL_UDP: u8 = 17;

impl PacketHead {
    /// Reads the head; `None` if this is no IP packet or its header is cut off.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let header = packet.first_chunk::<IPV4_HEADER_LEN_MIN>()?;
                Some(Self {
                    source: ipv4(header, 12),
                    destination: ipv4(header, 16),
                    ecn: Ecn::from_bits(header[1]),
                })
            }
            6 => {
                let header = packet.first_chunk::<IPV6_HEADER_LEN>()?;
                Some(Self {
                    source: ipv6(header, 8),
                    destination: ipv6(header, 24),
                    ecn: Ecn::from_bits(header[1] >> 4),
                })
            }
            _ => None,
        }
    }

    /// True if the packet is UDP from `source_port` to `to`, which is how our own datagrams look from outside.
    /// Fragments other than the first have no ports and are told by their destination alone when they come back as a
    /// whole.
    pub(crate) fn is_datagram_to(&self, packet: &[u8], source_port: u16, to: SocketAddr) -> bool {
        if self.destination != to.ip() {
            return false;
        }
        let (protocol, header_len) = match self.destination {
            IpAddr::V4(_) => (packet[9], usize::from(packet[0] & 0x0f) * 4),
            IpAddr::V6(_) => (packet[6], IPV6_HEADER_LEN),
        };
        let Some(ports) = packet.get(header_len..header_len + 4) else {
            return false;
        };
        protocol == PROTOCOL_UDP
            && ports[..2] == source_port.to_be_bytes()
            && ports[2..] == to.port().to_be_bytes()
    }
}

/// The length that an IP packet says it has, so that padding can be told from it; `None` if that is more than there is,
/// or too short for its header.
pub(crate) fn packet_len(packet: &[u8]) -> Option<usize> {
    let length_at = |at: usize| {
        Some(usize::from(u16::from_be_bytes(
            *packet.get(at..)?.first_chunk()?,
        )))
    };
    let (len, header_len) = match packet.first()? >> 4 {
        4 => (length_at(2)?, IPV4_HEADER_LEN_MIN),
        6 => (length_at(4)? + IPV6_HEADER_LEN, IPV6_HEADER_LEN),
        _ => return None,
    };
    (header_len..=packet.len()).contains(&len).then_some(len)
}

fn ipv4(header: &[u8; IPV4_HEADER_LEN_MIN], at: usize) -> IpAddr {
    Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into()
}

fn ipv6(header: &[u8; IPV6_HEADER_LEN], at: usize) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    Ipv6Addr::from(octets).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4_udp(source_port: u16, to: SocketAddr) -> Vec<u8> {
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[1] = 0x02;
        packet[9] = PROTOCOL_UDP;
        packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
        let IpAddr::V4(destination) = to.ip() else {
            unreachable!()
        };
        packet[16..20].copy_from_slice(&destination.octets());
        packet[20..22].copy_from_slice(&source_port.to_be_bytes());
        packet[22..24].copy_from_slice(&to.port().to_be_bytes());
        packet
    }

    #[test]
    fn reads_both_families_and_refuses_the_rest() {
        let packet = ipv4_udp(1, "192.0.2.1:2".parse().unwrap());
        let head = PacketHead::parse(&packet).unwrap();
        assert_eq!(head.source, "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(head.destination, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(head.ecn, Ecn::Ect0);
        let mut v6 = vec![0; 40];
        v6[0] = 0x60;
        v6[1] = 0x30;
        v6[39] = 1;
        assert_eq!(PacketHead::parse(&v6).unwrap().ecn, Ecn::Ce);
        assert_eq!(
            PacketHead::parse(&v6).unwrap().destination,
            "::1".parse::<IpAddr>().unwrap()
        );
        for cut in 0..20 {
            assert_eq!(PacketHead::parse(&packet[..cut]), None);
        }
        assert_eq!(PacketHead::parse(&v6[..39]), None);
        assert_eq!(PacketHead::parse(&[0x50; 60]), None);
    }

    #[test]
    fn a_packet_is_as_long_as_it_says_or_nothing() {
        let mut v4 = vec![0x45; 60];
        let mut v6 = vec![0x60; 60];
        for (said, v4_len, v6_len) in [
            (0u16, None, Some(40)),
            (19, None, Some(59)),
            (20, Some(20), Some(60)),
            (21, Some(21), None),
            (60, Some(60), None),
            (61, None, None),
        ] {
            v4[2..4].copy_from_slice(&said.to_be_bytes());
            v6[4..6].copy_from_slice(&said.to_be_bytes());
            assert_eq!(packet_len(&v4), v4_len, "{said}");
            assert_eq!(packet_len(&v6), v6_len, "{said}");
        }
        assert_eq!(packet_len(&v4[..19]), None);
        assert_eq!(packet_len(&v6[..39]), None);
        assert_eq!(packet_len(&[]), None);
    }

    #[test]
    fn own_datagrams_are_recognised_by_all_four_parts() {
        let to = "192.0.2.1:51820".parse().unwrap();
        let packet = ipv4_udp(4242, to);
        let head = PacketHead::parse(&packet).unwrap();
        assert!(head.is_datagram_to(&packet, 4242, to));
        assert!(!head.is_datagram_to(&packet, 4243, to));
        assert!(!head.is_datagram_to(&packet, 4242, "192.0.2.1:51821".parse().unwrap()));
        assert!(!head.is_datagram_to(&packet, 4242, "192.0.2.2:51820".parse().unwrap()));
        assert!(!head.is_datagram_to(&packet[..22], 4242, to));
        let mut tcp = packet;
        tcp[9] = 6;
        assert!(!head.is_datagram_to(&tcp, 4242, to));
    }
}
