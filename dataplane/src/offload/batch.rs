//! One super-packet while it grows in the buffer of its TUN write.

use std::num::NonZeroU16;

use super::buffer::{PACKET_LEN_MAX, TunBuffer};
use super::checksum::Sum;
use super::flow::{Flow, Segment};
use super::headers::{ipv4, ipv6, read_u16, tcp, udp, write_u16};
use super::vnet::{Gso, VnetHeader};

/// More segments than this of UDP and the kernel refuses the write: UDP_MAX_SEGMENTS, which newer
/// kernels raise to 128. TCP is bounded by the length alone.
const UDP_SEGMENTS_MAX: usize = 64;

/// A first packet and the payloads of those that continue it.
#[derive(Debug)]
pub(super) struct Batch {
    buffer: TunBuffer,
    first: Segment,
    /// The first packet's checksum, looked at only when a second packet comes.
    first_is_good: Option<bool>,
    count: usize,
    /// The offset of the next payload, counted from the start of the packet.
    end: usize,
    /// The last packet ended the batch: with PSH, by being short, or as the last that may be.
    is_ended: bool,
    push: bool,
}

impl Batch {
    /// `buffer` holds the packet that `first` was read from.
    pub(super) fn new(buffer: TunBuffer, first: Segment) -> Self {
        Self {
            buffer,
            first_is_good: None,
            count: 1,
            end: first.header_len() + first.payload_len,
            is_ended: first.push,
            push: first.push,
            first,
        }
    }

    pub(super) fn flow(&self) -> Flow {
        self.first.flow()
    }

    /// Appends `packet`, which `segment` was read from, if it is the next of this super-packet and
    /// its checksum and that of the first allow it.
    pub(super) fn append(&mut self, segment: &Segment, packet: &[u8]) -> bool {
        if !self.is_continued_by(segment, packet) || !self.is_first_good() {
            return false;
        }
        let (header, payload) = packet.split_at(segment.header_len());
        let end = self.end + segment.payload_len;
        let room = &mut self.buffer.packet_mut()[self.end..end];
        // Behind the end nothing is lost if the checksum turns out bad.
        let payload = match segment.has_checksum() {
            true => Sum::of_copied(payload, room),
            false => {
                room.copy_from_slice(payload);
                Sum::ZERO
            }
        };
        if !segment.is_checksum_good(header, payload) {
            return false;
        }
        self.end = end;
        self.count += 1;
        self.push = segment.push;
        self.is_ended = segment.push
            || segment.payload_len < self.first.payload_len
            || (!segment.is_tcp() && self.count == UDP_SEGMENTS_MAX);
        true
    }

    fn is_first_good(&mut self) -> bool {
        let (first, buffer) = (&self.first, &self.buffer);
        *self.first_is_good.get_or_insert_with(|| {
            let packet = &buffer.packet()[..first.header_len() + first.payload_len];
            let (header, payload) = packet.split_at(first.header_len());
            first.is_checksum_good(header, Sum::of(payload))
        })
    }

    fn is_continued_by(&self, segment: &Segment, packet: &[u8]) -> bool {
        let sent = self.end - self.first.header_len();
        let sequence = match self.first.is_tcp() {
            true => self.first.sequence.wrapping_add(sent as u32),
            false => 0,
        };
        let identification = self
            .first
            .identification
            .map(|first| first.wrapping_add(self.count as u16));
        segment.sequence == sequence
            && segment.identification == identification
            && segment.payload_len <= self.first.payload_len
            && self.end + segment.payload_len <= PACKET_LEN_MAX
            && segment.is_like(packet, &self.first, self.buffer.packet())
    }

    /// True if nothing can follow.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Completes the headers for what became of the packet.
    pub(super) fn finish(mut self) -> TunBuffer {
        let Some(size) = NonZeroU16::new(self.first.payload_len as u16).filter(|_| self.count > 1)
        else {
            self.buffer.finish(VnetHeader::Whole, self.end);
            return self.buffer;
        };
        let (first, end) = (self.first, self.end);
        let packet = &mut self.buffer.packet_mut()[..end];
        finish_ip(packet, &first);
        let gso = finish_transport(packet, &first, self.push);
        let vnet = VnetHeader::Super {
            gso,
            size,
            header_len: first.header_len() as u16,
            transport: first.transport_at() as u16,
        };
        self.buffer.finish(vnet, end);
        self.buffer
    }
}

fn finish_ip(packet: &mut [u8], first: &Segment) {
    if first.is_v4() {
        let total_len = packet.len() as u16;
        write_u16(packet, ipv4::TOTAL_LEN, total_len);
        write_u16(packet, ipv4::CHECKSUM, 0);
        let checksum = Sum::of(&packet[..ipv4::LEN_MIN]).checksum();
        write_u16(packet, ipv4::CHECKSUM, checksum);
    } else {
        let payload_len = (packet.len() - ipv6::LEN) as u16;
        write_u16(packet, ipv6::PAYLOAD_LEN, payload_len);
    }
}

/// Leaves the pseudo-header's sum in the checksum field, for the kernel to go on from.
fn finish_transport(packet: &mut [u8], first: &Segment, push: bool) -> Gso {
    let segment_len = packet.len() - first.transport_at();
    let partial = first.pseudo_header(packet, segment_len).fold();
    let segment = &mut packet[first.transport_at()..];
    if !first.is_tcp() {
        write_u16(segment, udp::LENGTH, segment_len as u16);
        write_u16(segment, udp::CHECKSUM, partial);
        return Gso::UdpL4;
    }
    if push {
        let flags = read_u16(segment, tcp::FLAGS);
        write_u16(segment, tcp::FLAGS, flags | tcp::PSH);
    }
    write_u16(segment, tcp::CHECKSUM, partial);
    match first.is_v4() {
        true => Gso::TcpV4 { ecn: false },
        false => Gso::TcpV6 { ecn: false },
    }
}
