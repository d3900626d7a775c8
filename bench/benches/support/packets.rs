//! Reads of a TUN, as the kernel hands them over: the vnet header, then a packet whose checksum
//! field holds only the pseudo-header's sum.

use std::net::Ipv4Addr;

use ployz_dataplane::offload::checksum::Sum;
use ployz_dataplane::offload::{Gso, VnetHeader};

pub(crate) const A: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
pub(crate) const B: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);

/// The size of a full TCP segment's packet inside the tunnel.
pub(crate) const FULL: usize = 1420;
/// As many as fit into 64 KiB.
pub(crate) const SEGMENTS: usize = 44;

const IP: usize = 20;
/// With the timestamp option, as Linux sends it.
const TCP: usize = 32;
const UDP: usize = 8;

/// From A to B: [`SEGMENTS`] TCP segments of [`FULL`] bytes in one read.
pub(crate) fn tcp_read() -> Vec<u8> {
    let payload = FULL - IP - TCP;
    let gso = Gso::TcpV4 { ecn: false };
    let vnet = VnetHeader::Super {
        gso,
        size: u16::try_from(payload).unwrap().try_into().unwrap(),
        header_len: u16::try_from(IP + TCP).unwrap(),
        transport: u16::try_from(IP).unwrap(),
    };
    let mut packet = ip_packet(6, TCP + SEGMENTS * payload);
    packet[IP..IP + 4].copy_from_slice(&[0xc0, 0, 0x14, 0x51]);
    // Eight words of header, ACK, and an option that fills it up.
    packet[IP + 12..IP + 14].copy_from_slice(&[0x80, 0x10]);
    packet[IP + 14] = 0xff;
    packet[IP + 20..IP + 24].copy_from_slice(&[1, 1, 8, 10]);
    partial_checksum(&mut packet, 6, usize::from(gso.checksum_offset()));
    with_vnet(vnet, &packet)
}

/// From A to B: one UDP datagram, `len` bytes of payload.
pub(crate) fn udp_read(len: usize) -> Vec<u8> {
    let mut packet = ip_packet(17, UDP + len);
    packet[IP..IP + 4].copy_from_slice(&[0xc0, 0, 0x14, 0x51]);
    let length = u16::try_from(UDP + len).unwrap();
    packet[IP + 4..IP + 6].copy_from_slice(&length.to_be_bytes());
    partial_checksum(&mut packet, 17, 6);
    let vnet = VnetHeader::PartialChecksum {
        start: u16::try_from(IP).unwrap(),
        offset: 6,
    };
    with_vnet(vnet, &packet)
}

/// The header of an IPv4 packet with its checksum, and room for `len` bytes behind it.
fn ip_packet(protocol: u8, len: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..IP + len).map(|at| (at * 7) as u8).collect();
    packet[..IP].fill(0);
    packet[IP..IP + TCP.min(len)].fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(IP + len).unwrap().to_be_bytes());
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&A.octets());
    packet[16..20].copy_from_slice(&B.octets());
    let checksum = Sum::of(&packet[..IP]).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn partial_checksum(packet: &mut [u8], protocol: u8, offset: usize) {
    let len = u16::try_from(packet.len() - IP).unwrap();
    let sum = Sum::pseudo_header(&packet[12..20], protocol, len).fold();
    packet[IP + offset..IP + offset + 2].copy_from_slice(&sum.to_be_bytes());
}

fn with_vnet(vnet: VnetHeader, packet: &[u8]) -> Vec<u8> {
    [vnet.to_bytes().as_slice(), packet].concat()
}
