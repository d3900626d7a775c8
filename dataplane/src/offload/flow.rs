//! Tells whether an inner packet may become part of a super-packet, and of which.

use super::checksum::Sum;
use super::headers::{TCP, UDP, ip_version, ipv4, ipv6, read_u16, read_u32, tcp, udp};

/// What the coalescer makes of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Class {
    /// May start or continue a super-packet.
    Segment(Segment),
    /// Travels alone, in order with the rest of its flow.
    Alone(Flow),
    /// Travels alone and could belong to any flow: fragments, extension headers, other protocols.
    Opaque,
}

/// Packets of one flow are never reordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    addresses: Addresses,
    protocol: u8,
    ports: u32,
}

/// A packet that a super-packet can contain: no IP options or fragments, a payload, and for TCP no
/// flags but ACK and PSH.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    constant: Constant,
    /// For IPv4 without DF, where it has to count up. An atomic datagram's identification has no
    /// meaning (RFC 6864, 4.1), and unconnected UDP sockets leave it zero.
    pub(super) identification: Option<u16>,
    /// Zero for UDP.
    pub(super) sequence: u32,
    pub(super) push: bool,
    pub(super) payload_len: usize,
}

/// What all segments of a super-packet have in common, besides their TCP options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Constant {
    network: Network,
    /// Source and destination port.
    ports: u32,
    transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    addresses: Addresses,
    protocol: u8,
    /// IPv4: the type of service. IPv6: version, traffic class and flow label.
    service: u32,
    /// IPv4: the fragment word, which is DF or zero. IPv6: zero.
    fragment: u16,
    hop_limit: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Addresses {
    V4(u64),
    V6(u128, u128),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp {
        header_len: u8,
        acknowledgement: u32,
        window: u16,
        urgent: u16,
    },
    Udp {
        has_checksum: bool,
    },
}

/// Reads one packet as it came out of the tunnel.
pub(super) fn classify(packet: &[u8]) -> Class {
    let parsed = match ip_version(packet) {
        Some(4) => parse_v4(packet),
        Some(6) => parse_v6(packet),
        Some(_) | None => None,
    };
    let Some((network, identification)) = parsed else {
        return Class::Opaque;
    };
    let bytes = &packet[network.header_len()..];
    match network.protocol {
        TCP => classify_tcp(network, identification, bytes),
        UDP => classify_udp(network, identification, bytes),
        _ => Class::Opaque,
    }
}

/// None for what cannot be put together again from a super-packet's header.
fn parse_v4(packet: &[u8]) -> Option<(Network, Option<u16>)> {
    let header = packet.first_chunk::<{ ipv4::LEN_MIN }>()?;
    let fragment = read_u16(header, ipv4::FRAGMENT);
    let is_plain = header[0] == 0x45
        && fragment & !ipv4::DONT_FRAGMENT == 0
        && usize::from(read_u16(header, ipv4::TOTAL_LEN)) == packet.len();
    // A super-packet's header gets a new checksum: a bad one must not become good. The other zero
    // is never computed.
    let is_good = Sum::of(header).fold() == 0xffff && read_u16(header, ipv4::CHECKSUM) != 0xffff;
    if !is_plain || !is_good {
        return None;
    }
    let source = read_u32(header, ipv4::SOURCE);
    let destination = read_u32(header, ipv4::DESTINATION);
    let network = Network {
        addresses: Addresses::V4(u64::from(source) << 32 | u64::from(destination)),
        protocol: header[ipv4::PROTOCOL],
        service: header[ipv4::SERVICE].into(),
        fragment,
        hop_limit: header[ipv4::TTL],
    };
    let identification = match fragment {
        ipv4::DONT_FRAGMENT => None,
        _ => Some(read_u16(header, ipv4::IDENTIFICATION)),
    };
    Some((network, identification))
}

fn parse_v6(packet: &[u8]) -> Option<(Network, Option<u16>)> {
    let header = packet.first_chunk::<{ ipv6::LEN }>()?;
    if usize::from(read_u16(header, ipv6::PAYLOAD_LEN)) + ipv6::LEN != packet.len() {
        return None;
    }
    let source = read_u128(header, ipv6::SOURCE);
    let destination = read_u128(header, ipv6::DESTINATION);
    let network = Network {
        addresses: Addresses::V6(source, destination),
        protocol: header[ipv6::NEXT_HEADER],
        service: read_u32(header, 0),
        fragment: 0,
        hop_limit: header[ipv6::HOP_LIMIT],
    };
    Some((network, None))
}

fn classify_tcp(network: Network, identification: Option<u16>, bytes: &[u8]) -> Class {
    let Some(header) = bytes.first_chunk::<{ tcp::LEN_MIN }>() else {
        return Class::Opaque;
    };
    let ports = read_u32(header, 0);
    let word = read_u16(header, tcp::FLAGS);
    let header_len = tcp::header_len(word);
    let flags = word & tcp::FLAGS_MASK;
    let is_plain =
        header_len >= tcp::LEN_MIN && header_len < bytes.len() && flags & !tcp::PSH == tcp::ACK;
    if !is_plain {
        return Class::Alone(network.flow(ports));
    }
    let transport = Transport::Tcp {
        header_len: header_len as u8,
        acknowledgement: read_u32(header, tcp::ACKNOWLEDGEMENT),
        window: read_u16(header, tcp::WINDOW),
        urgent: read_u16(header, tcp::URGENT),
    };
    Class::Segment(Segment {
        constant: Constant {
            network,
            ports,
            transport,
        },
        identification,
        sequence: read_u32(header, tcp::SEQUENCE),
        push: flags & tcp::PSH != 0,
        payload_len: bytes.len() - header_len,
    })
}

fn classify_udp(network: Network, identification: Option<u16>, bytes: &[u8]) -> Class {
    let Some(header) = bytes.first_chunk::<{ udp::LEN }>() else {
        return Class::Opaque;
    };
    let ports = read_u32(header, 0);
    if usize::from(read_u16(header, udp::LENGTH)) != bytes.len() || bytes.len() == udp::LEN {
        return Class::Alone(network.flow(ports));
    }
    let transport = Transport::Udp {
        has_checksum: read_u16(header, udp::CHECKSUM) != 0,
    };
    Class::Segment(Segment {
        constant: Constant {
            network,
            ports,
            transport,
        },
        identification,
        sequence: 0,
        push: false,
        payload_len: bytes.len() - udp::LEN,
    })
}

impl Segment {
    pub(super) fn flow(&self) -> Flow {
        self.constant.network.flow(self.constant.ports)
    }

    pub(super) fn is_v4(&self) -> bool {
        self.constant.network.is_v4()
    }

    pub(super) fn is_tcp(&self) -> bool {
        matches!(self.constant.transport, Transport::Tcp { .. })
    }

    /// UDP may come without.
    pub(super) fn has_checksum(&self) -> bool {
        match self.constant.transport {
            Transport::Tcp { .. } => true,
            Transport::Udp { has_checksum } => has_checksum,
        }
    }

    /// Where the transport header starts.
    pub(super) fn transport_at(&self) -> usize {
        self.constant.network.header_len()
    }

    /// IP and transport header together.
    pub(super) fn header_len(&self) -> usize {
        self.transport_at()
            + match self.constant.transport {
                Transport::Tcp { header_len, .. } => header_len.into(),
                Transport::Udp { .. } => udp::LEN,
            }
    }

    /// Whether two packets differ only in what a super-packet can restore. What it has to restore
    /// in order, identification and sequence, is for the caller to compare.
    pub(super) fn is_like(&self, packet: &[u8], first: &Self, first_packet: &[u8]) -> bool {
        let options = match self.constant.transport {
            Transport::Tcp { .. } => self.transport_at() + tcp::LEN_MIN..self.header_len(),
            Transport::Udp { .. } => 0..0,
        };
        self.constant == first.constant && packet[options.clone()] == first_packet[options]
    }

    /// Whether cutting a super-packet would reproduce the transport checksum of the packet that
    /// `self` was read from. Joining takes checksums away and cutting makes new ones, so a packet
    /// that was corrupted before it came to the tunnel must not pass.
    pub(super) fn is_checksum_good(&self, header: &[u8], payload: Sum) -> bool {
        let bytes = &header[self.transport_at()..];
        match self.constant.transport {
            // The other zero is never computed.
            Transport::Tcp { .. } if read_u16(bytes, tcp::CHECKSUM) == 0xffff => return false,
            // None is a good one on IPv4 (RFC 768) and a bad one on IPv6 (RFC 8200, 8.1).
            Transport::Udp {
                has_checksum: false,
            } => return self.is_v4(),
            Transport::Tcp { .. } | Transport::Udp { has_checksum: true } => {}
        }
        let pseudo_header = self.pseudo_header(header, bytes.len() + self.payload_len);
        (pseudo_header + Sum::of(bytes) + payload).fold() == 0xffff
    }

    /// The sum of the pseudo-header for a packet with the addresses of `packet`.
    pub(super) fn pseudo_header(&self, packet: &[u8], transport_len: usize) -> Sum {
        let addresses = match self.is_v4() {
            true => &packet[ipv4::SOURCE..ipv4::LEN_MIN],
            false => &packet[ipv6::SOURCE..ipv6::LEN],
        };
        // Behind an IPv6 header of 40 bytes the transport's length fits 16 bits.
        Sum::pseudo_header(
            addresses,
            self.constant.network.protocol,
            transport_len as u16,
        )
    }
}

impl Network {
    fn flow(&self, ports: u32) -> Flow {
        Flow {
            addresses: self.addresses,
            protocol: self.protocol,
            ports,
        }
    }

    fn is_v4(&self) -> bool {
        matches!(self.addresses, Addresses::V4(_))
    }

    fn header_len(&self) -> usize {
        match self.addresses {
            Addresses::V4(_) => ipv4::LEN_MIN,
            Addresses::V6(..) => ipv6::LEN,
        }
    }
}

fn read_u128(header: &[u8; ipv6::LEN], at: usize) -> u128 {
    header[at..at + 16]
        .iter()
        .fold(0, |value, byte| value << 8 | u128::from(*byte))
}
