//! Messages between two engines, inside the tunnel.
//!
//! To WireGuard they are packets like any other: encrypted, authenticated, in sequence. They are IPv6 packets from a
//! link-local address of our own to itself, with a protocol number for experiments (RFC 3692) and a hop limit of one. An
//! engine takes them before it looks at allowed IPs; a stock peer finds the source in nobody's and drops them, and even
//! where everything is allowed no router passes a link-local address on.
//!
//! ```text
//!   IPv6 header (40)   version (1)   kind (1)   id (2, big-endian)   value (4, big-endian)   zeros
//! ```

use std::net::{IpAddr, Ipv6Addr};

/// `fe80::` and "ployz".
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x70, 0x6c6f, 0x797a);
const IPV6_HEADER_LEN: usize = 40;
/// Use for experimentation and testing (RFC 3692, section 2.1).
const PROTOCOL: u8 = 253;
const VERSION: u8 = 1;

/// The length of a message without padding.
pub(crate) const PROBE_LEN: usize = IPV6_HEADER_LEN + 8;

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
    /// Something that only a later version knows.
    Unknown,
}

/// True for the address that is ours alone: no packet from a TUN may use it.
pub(crate) fn is_reserved(address: IpAddr) -> bool {
    address == IpAddr::V6(ADDRESS)
}

impl Probe {
    /// Fills a packet of at least [`PROBE_LEN`] bytes.
    pub(crate) fn write(self, packet: &mut [u8]) {
        let (kind, id, value) = match self {
            Self::Size { round } => (1, round, 0),
            Self::Answer {
                round,
                datagram_len,
            } => (2, round, datagram_len),
            Self::Train { train, index } => (3, train, index.into()),
            Self::Question { train } => (4, train, 0),
            Self::Report { train, arrived } => (5, train, arrived.into()),
            Self::Unknown => (u8::MAX, 0, 0),
        };
        packet.fill(0);
        packet[0] = 0x60;
        let payload_len = (packet.len() - IPV6_HEADER_LEN) as u16;
        packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
        packet[6] = PROTOCOL;
        packet[7] = 1;
        packet[8..24].copy_from_slice(&ADDRESS.octets());
        packet[24..40].copy_from_slice(&ADDRESS.octets());
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
        Some(Self::parse_body(&packet[IPV6_HEADER_LEN..]).unwrap_or(Self::Unknown))
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

#[cfg(test)]
mod tests {
    use super::*;

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
