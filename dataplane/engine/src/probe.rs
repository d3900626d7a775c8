//! Messages between two engines, inside the tunnel.
//!
//! To WireGuard they are packets like any other: encrypted, authenticated, in sequence. They are IPv6 packets from a
//! link-local address of our own to itself, with a protocol number for experiments (RFC 3692) and a hop limit of one.
//! An engine takes them before it looks at allowed IPs; a stock peer finds the source in nobody's and drops them, and
//! even where everything is allowed no router passes a link-local address on.
//!
//! ```text
//!   IPv6 header (40)   version (1)   kind (1)   id (2, big-endian)   value (4, big-endian)   zeros
//! ```
//!
//! Tests of the round trip are UDP datagrams instead, between STAMP's ports (`stamp`).

use std::net::{IpAddr, Ipv6Addr};

use crate::stamp::{Reply, STAMP_LEN, Test};

/// `fe80::` and "ployz".
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x70, 0x6c6f, 0x797a);
const IPV6_HEADER_LEN: usize = 40;
/// Use for experimentation and testing (RFC 3692, section 2.1).
const PROTOCOL: u8 = 253;
const VERSION: u8 = 1;
const UDP: u8 = 17;
const UDP_HEADER_LEN: usize = 8;
/// The port of a STAMP reflector (RFC 8762, section 4.1), and ours.
const REFLECTOR_PORT: u16 = 862;
const SENDER_PORT: u16 = 1862;

/// The length of a message without padding.
pub(crate) const PROBE_LEN: usize = IPV6_HEADER_LEN + 8;
/// The length of the longest message without padding.
pub(crate) const PROBE_LEN_MAX: usize = IPV6_HEADER_LEN + UDP_HEADER_LEN + STAMP_LEN;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Does a datagram of this length arrive? Answer with its length.
    Size { round: u16 },
    /// A datagram of `datagram_len` bytes has arrived.
    Answer { round: u16, datagram_len: u32 },
    /// Number `index` of a train. Count it.
    Train { train: u16, index: u8 },
    /// How many of a train have arrived?
    Question { train: u16 },
    /// So many.
    Report { train: u16, arrived: u8 },
    /// How long is the way? Answer at once.
    Test(Test),
    /// The answer to a test.
    Reply(Reply),
    /// Something that only a later version knows.
    Unknown,
}

/// True for the address that is ours alone: no packet from a TUN may use it.
pub(crate) fn is_reserved(address: IpAddr) -> bool {
    address == IpAddr::V6(ADDRESS)
}

impl Probe {
    /// Its length in bytes, without padding.
    pub(crate) const fn len(self) -> usize {
        match self {
            Self::Test(_) | Self::Reply(_) => PROBE_LEN_MAX,
            Self::Size { .. }
            | Self::Answer { .. }
            | Self::Train { .. }
            | Self::Question { .. }
            | Self::Report { .. }
            | Self::Unknown => PROBE_LEN,
        }
    }

    /// Fills a packet of at least [`Probe::len`] bytes; that of a test or a reply is as long as that.
    pub(crate) fn write(self, packet: &mut [u8]) {
        packet.fill(0);
        packet[0] = 0x60;
        let payload_len = (packet.len() - IPV6_HEADER_LEN) as u16;
        packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
        packet[6] = PROTOCOL;
        packet[7] = 1;
        packet[8..24].copy_from_slice(&ADDRESS.octets());
        packet[24..40].copy_from_slice(&ADDRESS.octets());
        let (kind, id, value) = match self {
            Self::Size { round } => (1, round, 0),
            Self::Answer {
                round,
                datagram_len,
            } => (2, round, datagram_len),
            Self::Train { train, index } => (3, train, index.into()),
            Self::Question { train } => (4, train, 0),
            Self::Report { train, arrived } => (5, train, arrived.into()),
            Self::Test(test) => {
                return write_udp(packet, SENDER_PORT, REFLECTOR_PORT, |payload| {
                    test.write(payload)
                });
            }
            Self::Reply(reply) => {
                return write_udp(packet, REFLECTOR_PORT, SENDER_PORT, |payload| {
                    reply.write(payload)
                });
            }
            Self::Unknown => (u8::MAX, 0, 0),
        };
        packet[40] = VERSION;
        packet[41] = kind;
        packet[42..44].copy_from_slice(&id.to_be_bytes());
        packet[44..48].copy_from_slice(&value.to_be_bytes());
    }

    /// Reads a packet that came out of the tunnel; `None` if it is an ordinary one.
    #[inline]
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<IPV6_HEADER_LEN>()?;
        if header[0] >> 4 != 6 || header[8..24] != ADDRESS.octets() {
            return None;
        }
        let body = &packet[IPV6_HEADER_LEN..];
        let probe = if header[6] == UDP {
            Self::parse_udp(body)
        } else {
            Self::parse_body(body)
        };
        Some(probe.unwrap_or(Self::Unknown))
    }

    /// The tunnel has authenticated every byte: the checksum would add nothing.
    #[cold]
    fn parse_udp(body: &[u8]) -> Option<Self> {
        let (header, payload) = body.split_first_chunk::<UDP_HEADER_LEN>()?;
        let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        match (port(0), port(2)) {
            (_, REFLECTOR_PORT) => Test::parse(payload).map(Self::Test),
            (REFLECTOR_PORT, SENDER_PORT) => Reply::parse(payload).map(Self::Reply),
            _ => None,
        }
    }

    #[cold]
    fn parse_body(body: &[u8]) -> Option<Self> {
        let [VERSION, kind, id_high, id_low, value @ ..] = *body.first_chunk::<8>()? else {
            return None;
        };
        let id = u16::from_be_bytes([id_high, id_low]);
        let value = u32::from_be_bytes(value);
        match kind {
            1 => Some(Self::Size { round: id }),
            2 => Some(Self::Answer {
                round: id,
                datagram_len: value,
            }),
            3 => Some(Self::Train {
                train: id,
                index: u8::try_from(value).ok()?,
            }),
            4 => Some(Self::Question { train: id }),
            5 => Some(Self::Report {
                train: id,
                arrived: u8::try_from(value).ok()?,
            }),
            _ => None,
        }
    }
}

/// Puts a UDP datagram behind the IPv6 header; its checksum is that of RFC 8200, section 8.1.
fn write_udp(packet: &mut [u8], from: u16, to: u16, write: impl FnOnce(&mut [u8])) {
    packet[6] = UDP;
    let (header, datagram) = packet.split_at_mut(IPV6_HEADER_LEN);
    let len = datagram.len() as u16;
    datagram[..2].copy_from_slice(&from.to_be_bytes());
    datagram[2..4].copy_from_slice(&to.to_be_bytes());
    datagram[4..6].copy_from_slice(&len.to_be_bytes());
    write(&mut datagram[UDP_HEADER_LEN..]);
    let sum = u32::from(UDP) + u32::from(len) + sum_of_words(&header[8..]) + sum_of_words(datagram);
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = match !((folded & 0xffff) + (folded >> 16)) as u16 {
        0 => u16::MAX,
        checksum => checksum,
    };
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
}

/// Of at most 64 KiB, so that nothing overflows.
fn sum_of_words(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    words
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{Stamp, Stamper};

    const TEST: Test = Test {
        sequence: 1,
        session: 2,
        sent_ns: 3,
    };

    #[test]
    fn tests_and_replies_are_datagrams_with_a_good_checksum() {
        let reply = Reply {
            sequence: 0,
            test: TEST,
            received: Stamp {
                ns: 4,
                by: Stamper::Kernel,
            },
            sent_ns: 5,
            follow_ups: [None; 2],
        };
        for probe in [Probe::Test(TEST), Probe::Reply(reply)] {
            let mut packet = [0xff; PROBE_LEN_MAX];
            probe.write(&mut packet);
            assert_eq!(Probe::parse(&packet), Some(probe));
            let pseudo_header = u32::from(UDP) + (PROBE_LEN_MAX - IPV6_HEADER_LEN) as u32;
            let sum = pseudo_header + sum_of_words(&packet[8..]);
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
            for len in IPV6_HEADER_LEN..packet.len() - STAMP_LEN {
                assert_eq!(Probe::parse(&packet[..len]), Some(Probe::Unknown));
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let all = [
            Probe::Size { round: 1 },
            Probe::Answer {
                round: 0xfffe,
                datagram_len: 65_507,
            },
            Probe::Train {
                train: 2,
                index: 15,
            },
            Probe::Question { train: 3 },
            Probe::Report {
                train: 4,
                arrived: 16,
            },
        ];
        for probe in all {
            for len in [PROBE_LEN, 1420] {
                let mut packet = vec![0xff; len];
                probe.write(&mut packet);
                assert_eq!(Probe::parse(&packet), Some(probe));
            }
        }
    }

    #[test]
    fn other_packets_are_left_alone_and_unfinished_ones_are_unknown() {
        let mut packet = vec![0; PROBE_LEN];
        Probe::Question { train: 9 }.write(&mut packet);
        for len in 0..IPV6_HEADER_LEN {
            assert_eq!(Probe::parse(&packet[..len]), None);
        }
        for len in IPV6_HEADER_LEN..PROBE_LEN {
            assert_eq!(Probe::parse(&packet[..len]), Some(Probe::Unknown));
        }
        let mut later = packet.clone();
        later[40] = VERSION + 1;
        assert_eq!(Probe::parse(&later), Some(Probe::Unknown));
        let mut strange = packet.clone();
        strange[41] = 77;
        assert_eq!(Probe::parse(&strange), Some(Probe::Unknown));
        for at in 8..24 {
            let mut other = packet.clone();
            other[at] ^= 1;
            assert_eq!(Probe::parse(&other), None, "another source");
        }
        packet[0] = 0x45;
        assert_eq!(Probe::parse(&packet), None);
    }
}
