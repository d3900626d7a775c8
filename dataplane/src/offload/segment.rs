//! Cuts one TUN read into the packets that go into the tunnel.
//!
//! ```text
//! let mut segments = Segments::from_read(&mut buffer[..len])?;
//! while let Some(packet) = segments.next_packet() { /* seal */ }
//! ```
//!
//! Nothing is copied but headers: the header of each packet is written right in front of its
//! payload, over the end of the payload before it, which the caller has sealed by then. That is
//! why [`Segments`] borrows the read mutably and lends one packet at a time.

use super::checksum::Sum;
use super::headers::{
    TCP, UDP, ip_version, ipv4, ipv4_header_len, ipv6, read_u16, read_u32, tcp, udp, write_u16,
    write_u32,
};
use super::malformed::Malformed;
use super::vnet::{Gso, VnetHeader};

/// The packets of one TUN read, in order.
#[derive(Debug)]
pub struct Segments<'a> {
    packet: &'a mut [u8],
    split: Option<Split>,
    next: usize,
    count: usize,
}

impl<'a> Segments<'a> {
    /// From a whole TUN read: the vnet header and the packet behind it.
    pub fn from_read(read: &'a mut [u8]) -> Result<Self, Malformed> {
        let vnet = VnetHeader::parse(read)?;
        Self::new(vnet, &mut read[VnetHeader::LEN..])
    }

    /// A packet that is not a super-packet becomes the only packet, its checksum completed.
    pub fn new(vnet: VnetHeader, packet: &'a mut [u8]) -> Result<Self, Malformed> {
        let split = match vnet {
            VnetHeader::Whole => None,
            VnetHeader::PartialChecksum { start, offset } => {
                complete_checksum(packet, start.into(), offset.into())?;
                None
            }
            VnetHeader::Super {
                gso,
                size,
                header_len,
                transport,
            } => {
                if usize::from(header_len) > packet.len() {
                    return Err(Malformed::HeaderLength);
                }
                Some(Split::parse(
                    gso,
                    size.get().into(),
                    transport.into(),
                    packet,
                )?)
            }
        };
        let count = match &split {
            None => 1,
            // A super-packet without payload is still one packet.
            Some(split) => (packet.len() - split.header_len)
                .div_ceil(split.size)
                .max(1),
        };
        Ok(Self {
            packet,
            split,
            next: 0,
            count,
        })
    }

    /// The next packet for the wire. It is overwritten by the call after this one.
    #[inline]
    pub fn next_packet(&mut self) -> Option<&[u8]> {
        if self.next == self.count {
            return None;
        }
        let index = self.next;
        self.next += 1;
        let Some(split) = &self.split else {
            return Some(self.packet);
        };
        let start = index * split.size;
        let end = self.packet.len().min(start + split.header_len + split.size);
        if index > 0 {
            // The header before this one is intact even where the two overlap.
            let previous = start - split.size;
            self.packet
                .copy_within(previous..previous + split.header_len, start);
        }
        let packet = &mut self.packet[start..end];
        split.finish_ip(packet, index);
        split.finish_transport(packet, index, index + 1 == self.count);
        Some(packet)
    }

    /// The packet as it was read: for looking at its addresses before the first `next_packet`.
    #[must_use]
    pub fn super_packet(&self) -> &[u8] {
        self.packet
    }

    /// The number of packets that are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.count - self.next
    }

    /// The length of the longest packet: all have it except perhaps the last.
    #[must_use]
    pub fn packet_len_max(&self) -> usize {
        let whole = self.packet.len();
        self.split
            .as_ref()
            .map_or(whole, |split| whole.min(split.header_len + split.size))
    }
}

/// The cuts of a super-packet, with everything summed that its packets have in common.
#[derive(Debug)]
struct Split {
    ip: Ip,
    transport: Transport,
    /// The offset of the transport header.
    transport_at: usize,
    /// IP and transport header together.
    header_len: usize,
    /// Payload bytes in every packet but the last.
    size: usize,
    /// Pseudo-header and transport header, without lengths, sequence, flags and checksum.
    constant_sum: Sum,
}

#[derive(Debug)]
enum Ip {
    /// `constant_sum`: the header without length, identification and checksum.
    V4 {
        identification: u16,
        constant_sum: Sum,
    },
    V6,
}

#[derive(Debug)]
enum Transport {
    Tcp { sequence: u32, flags: u16 },
    Udp,
}

impl Split {
    fn parse(gso: Gso, size: usize, transport_at: usize, packet: &[u8]) -> Result<Self, Malformed> {
        let (version, protocol) = match gso {
            Gso::TcpV4 { .. } => (Some(4), TCP),
            Gso::TcpV6 { .. } => (Some(6), TCP),
            Gso::UdpL4 => (ip_version(packet), UDP),
        };
        if version != ip_version(packet) {
            return Err(Malformed::Protocol);
        }
        let ip = match version {
            Some(4) => Ip::parse_v4(packet, protocol, transport_at)?,
            Some(6) => Ip::parse_v6(packet, protocol, transport_at)?,
            Some(_) => return Err(Malformed::Protocol),
            None => return Err(Malformed::Truncated),
        };
        let segment = packet.get(transport_at..).ok_or(Malformed::Truncated)?;
        let segment_len = u16::try_from(segment.len()).map_err(|_| Malformed::Length)?;
        let (transport, transport_len) = Transport::parse(protocol, segment)?;

        // The field holds the pseudo-header's sum with the super-packet's length. Starting from
        // it, as the kernel does, is right even where a routing header hides the destination.
        let partial = read_u16(segment, usize::from(gso.checksum_offset()));
        let constant_sum = (Sum::ZERO + partial).without(segment_len)
            + transport.constant_sum(&segment[..transport_len]);
        Ok(Self {
            ip,
            transport,
            transport_at,
            header_len: transport_at + transport_len,
            size,
            constant_sum,
        })
    }

    fn finish_ip(&self, packet: &mut [u8], index: usize) {
        match self.ip {
            Ip::V4 {
                identification,
                constant_sum,
            } => {
                let total_len = packet.len() as u16;
                // The index is below 2^16: a packet has at least one byte of the 64 KiB.
                let identification = identification.wrapping_add(index as u16);
                let checksum = (constant_sum + total_len + identification).checksum();
                write_u16(packet, ipv4::TOTAL_LEN, total_len);
                write_u16(packet, ipv4::IDENTIFICATION, identification);
                write_u16(packet, ipv4::CHECKSUM, checksum);
            }
            Ip::V6 => {
                let payload_len = (packet.len() - ipv6::LEN) as u16;
                write_u16(packet, ipv6::PAYLOAD_LEN, payload_len);
            }
        }
    }

    fn finish_transport(&self, packet: &mut [u8], index: usize, is_last: bool) {
        let payload = Sum::of(&packet[self.header_len..]);
        let segment = &mut packet[self.transport_at..];
        let segment_len = segment.len() as u16;
        let sum = self.constant_sum + segment_len + payload;
        match self.transport {
            Transport::Tcp { sequence, flags } => {
                let sequence = sequence.wrapping_add((index * self.size) as u32);
                let mut flags = flags;
                if index > 0 {
                    flags &= !tcp::CWR;
                }
                if !is_last {
                    flags &= !(tcp::FIN | tcp::PSH);
                }
                write_u32(segment, tcp::SEQUENCE, sequence);
                write_u16(segment, tcp::FLAGS, flags);
                write_u16(segment, tcp::CHECKSUM, (sum + sequence + flags).checksum());
            }
            Transport::Udp => {
                write_u16(segment, udp::LENGTH, segment_len);
                write_u16(segment, udp::CHECKSUM, (sum + segment_len).checksum_udp());
            }
        }
    }
}

impl Ip {
    fn parse_v4(packet: &[u8], protocol: u8, transport_at: usize) -> Result<Self, Malformed> {
        let header_len = ipv4_header_len(packet).ok_or(Malformed::Truncated)?;
        let header = packet.get(..header_len).ok_or(Malformed::Truncated)?;
        if header_len < ipv4::LEN_MIN {
            return Err(Malformed::Truncated);
        }
        if header_len != transport_at {
            return Err(Malformed::TransportOffset);
        }
        if header[ipv4::PROTOCOL] != protocol {
            return Err(Malformed::Protocol);
        }
        if read_u16(header, ipv4::FRAGMENT) & ipv4::IS_FRAGMENT != 0 {
            return Err(Malformed::Fragment);
        }
        if usize::from(read_u16(header, ipv4::TOTAL_LEN)) != packet.len() {
            return Err(Malformed::Length);
        }
        Ok(Self::V4 {
            identification: read_u16(header, ipv4::IDENTIFICATION),
            constant_sum: Sum::of(&header[..ipv4::TOTAL_LEN])
                + Sum::of(&header[ipv4::FRAGMENT..ipv4::CHECKSUM])
                + Sum::of(&header[ipv4::SOURCE..]),
        })
    }

    /// Extension headers are not walked: the kernel says where the transport header starts.
    fn parse_v6(packet: &[u8], protocol: u8, transport_at: usize) -> Result<Self, Malformed> {
        let header = packet.get(..ipv6::LEN).ok_or(Malformed::Truncated)?;
        if transport_at < ipv6::LEN {
            return Err(Malformed::TransportOffset);
        }
        if transport_at == ipv6::LEN && header[ipv6::NEXT_HEADER] != protocol {
            return Err(Malformed::Protocol);
        }
        if usize::from(read_u16(header, ipv6::PAYLOAD_LEN)) + ipv6::LEN != packet.len() {
            return Err(Malformed::Length);
        }
        Ok(Self::V6)
    }
}

impl Transport {
    /// Also returns the length of the transport header.
    fn parse(protocol: u8, segment: &[u8]) -> Result<(Self, usize), Malformed> {
        if protocol == UDP {
            if segment.len() < udp::LEN {
                return Err(Malformed::Truncated);
            }
            if usize::from(read_u16(segment, udp::LENGTH)) != segment.len() {
                return Err(Malformed::Length);
            }
            return Ok((Self::Udp, udp::LEN));
        }
        if segment.len() < tcp::LEN_MIN {
            return Err(Malformed::Truncated);
        }
        let flags = read_u16(segment, tcp::FLAGS);
        let header_len = tcp::header_len(flags);
        if header_len < tcp::LEN_MIN || header_len > segment.len() {
            return Err(Malformed::Truncated);
        }
        let sequence = read_u32(segment, tcp::SEQUENCE);
        Ok((Self::Tcp { sequence, flags }, header_len))
    }

    /// The part of the checksum from header fields that all packets share.
    fn constant_sum(&self, header: &[u8]) -> Sum {
        match self {
            Self::Tcp { .. } => {
                Sum::of(&header[..tcp::SEQUENCE])
                    + Sum::of(&header[tcp::ACKNOWLEDGEMENT..tcp::FLAGS])
                    + Sum::of(&header[tcp::WINDOW..tcp::CHECKSUM])
                    + Sum::of(&header[tcp::URGENT..])
            }
            Self::Udp => Sum::of(&header[..udp::LENGTH]),
        }
    }
}

/// Replaces the pseudo-header's sum in the checksum field with the checksum.
fn complete_checksum(packet: &mut [u8], start: usize, offset: usize) -> Result<(), Malformed> {
    let region = packet
        .get_mut(start..)
        .filter(|region| offset + 2 <= region.len())
        .ok_or(Malformed::ChecksumOutside)?;
    let sum = Sum::of(region);
    // Only UDP has its checksum here, and only UDP cannot say zero.
    let checksum = match offset == udp::CHECKSUM {
        true => sum.checksum_udp(),
        false => sum.checksum(),
    };
    write_u16(region, offset, checksum);
    Ok(())
}

#[cfg(test)]
mod tests;
