//! IPv4 and UDP headers for packets that are made here instead of by a kernel.

use std::net::Ipv4Addr;

use crate::ping::internet_checksum;
use crate::udp::datagram::{self, Header};

pub(crate) const HEADER_BYTES: usize = 28;
const SOURCE_PORT: u16 = 7_001;
const UDP: u8 = 17;

/// A packet between two overlay addresses, reused for every number it carries.
pub(crate) struct InnerPacket {
    bytes: Vec<u8>,
    /// Over everything that the UDP checksum covers but the number: that is all that changes.
    constant_sum: u16,
}

impl InnerPacket {
    pub(crate) fn new(from: Ipv4Addr, to: Ipv4Addr, port: u16, payload_bytes: usize) -> Self {
        let total = HEADER_BYTES + payload_bytes;
        let mut bytes = vec![0; total];
        bytes[0] = 0x45;
        bytes[2..4].copy_from_slice(&length(total));
        bytes[8] = 64;
        bytes[9] = UDP;
        bytes[12..16].copy_from_slice(&from.octets());
        bytes[16..20].copy_from_slice(&to.octets());
        let checksum = internet_checksum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes[20..22].copy_from_slice(&SOURCE_PORT.to_be_bytes());
        bytes[22..24].copy_from_slice(&port.to_be_bytes());
        bytes[24..26].copy_from_slice(&length(total - 20));
        let constant_sum = !internet_checksum(&pseudo_packet(&bytes));
        Self {
            bytes,
            constant_sum,
        }
    }

    /// The packet with `header` in its payload and a checksum to match.
    pub(crate) fn carrying(&mut self, header: Header) -> &[u8] {
        header.write(&mut self.bytes[HEADER_BYTES..]);
        // One's complement sums add up. A sum of zero is sent as all ones (RFC 768).
        let mut covered = [0; 2 + datagram::HEADER_BYTES];
        covered[..2].copy_from_slice(&self.constant_sum.to_be_bytes());
        header.write(&mut covered[2..]);
        let checksum = match internet_checksum(&covered) {
            0 => u16::MAX,
            checksum => checksum,
        };
        self.bytes[26..28].copy_from_slice(&checksum.to_be_bytes());
        &self.bytes
    }
}

/// The input of the UDP checksum: the addresses, the protocol, the length, and the datagram.
fn pseudo_packet(packet: &[u8]) -> Vec<u8> {
    let mut covered = packet[12..20].to_vec();
    covered.extend([0, UDP]);
    covered.extend(&packet[24..26]);
    covered.extend(&packet[20..]);
    covered
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_checksums_hold() {
        let (from, to) = (Ipv4Addr::new(10, 78, 1, 5), Ipv4Addr::new(10, 78, 0, 1));
        let mut packet = InnerPacket::new(from, to, 7_000, 101);
        let bytes = packet
            .carrying(Header {
                trial: 3,
                sequence: 77,
            })
            .to_vec();
        assert_eq!(bytes.len(), 129);
        assert_eq!(internet_checksum(&bytes[..20]), 0);
        assert_eq!(internet_checksum(&pseudo_packet(&bytes)), 0);
        assert_eq!(
            Header::read(&bytes[HEADER_BYTES..]),
            Some(Header {
                trial: 3,
                sequence: 77
            })
        );
    }
}
