//! One super-packet while it grows in the buffer of its TUN write.

use std::num::NonZeroU16;
use std::ops::Range;

use super::buffer::{PACKET_LEN_MAX, TunBuffer};
use super::checksum::Sum;
use super::flow::{Flow, Segment};
use super::headers::{ipv4, ipv6, read_u16, tcp, udp, write_u16};
use super::{Gso, VnetHeader};

/// More segments than this of UDP and the kernel refuses the write: UDP_MAX_SEGMENTS, which newer
/// kernels raise to 128. TCP is bounded by the length alone.
const UDP_SEGMENTS_MAX: usize = 64;

/// An IPv6 header and a TCP header with all its options.
pub(super) const HEADER_LEN_MAX: usize = ipv6::LEN + tcp::LEN_MAX;

/// A first packet and the payloads of those that continue it.
#[derive(Debug)]
pub(super) struct Batch {
    buffer: TunBuffer,
    first: Segment,
    /// The first packet's checksum, looked at only when a second packet comes.
    first_is_good: Option<bool>,
    count: usize,
    /// Where the next payload goes, counted from the start of the packet.
    end: usize,
    /// The last packet ended the batch, with PSH or by being short.
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

    /// Where to open a packet of `len` bytes such that its payload continues the super-packet and
    /// its header covers the end of the payload before it. None if it would not fit, would cover
    /// the super-packet's own header, or could not be joined anyway.
    pub(super) fn tail(&mut self, len: usize) -> Option<Range<usize>> {
        let header_len = self.first.header_len();
        let start = self.end - header_len;
        let range = start..start + len;
        let fits = start >= header_len && range.end <= self.buffer.packet().len();
        // Looked at now, because the packet to come may cover what is to be summed.
        (fits && self.is_first_good()).then_some(range)
    }

    pub(super) fn packet(&self) -> &[u8] {
        self.buffer.packet()
    }

    pub(super) fn packet_mut(&mut self) -> &mut [u8] {
        self.buffer.packet_mut()
    }

    pub(super) fn flow(&self) -> Flow {
        self.first.flow()
    }

    pub(super) fn header_len(&self) -> usize {
        self.first.header_len()
    }

    /// Whether the packet's own checksum allows others to join it.
    pub(super) fn is_first_good(&mut self) -> bool {
        let (first, buffer) = (&self.first, &self.buffer);
        *self
            .first_is_good
            .get_or_insert_with(|| first.has_good_checksum(buffer.packet()))
    }

    /// Whether `packet`, which `segment` was read from, is the next of this super-packet. It may
    /// lie in this batch's tail. [`Self::is_first_good`] is for the caller to ask before.
    pub(super) fn is_continued_by(&self, segment: &Segment, packet: &[u8]) -> bool {
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
            && segment.is_like(packet, &self.first, self.buffer.packet())
            && segment.has_good_checksum(packet)
    }

    /// Takes in a packet whose payload is in place already.
    pub(super) fn append(&mut self, segment: &Segment) {
        self.end += segment.payload_len;
        self.count += 1;
        self.push = segment.push;
        self.is_ended = segment.push || segment.payload_len < self.first.payload_len;
    }

    /// Takes in a packet that lies elsewhere.
    pub(super) fn append_copy(&mut self, segment: &Segment, packet: &[u8]) {
        let payload = &packet[segment.header_len()..segment.header_len() + segment.payload_len];
        self.buffer.packet_mut()[self.end..self.end + payload.len()].copy_from_slice(payload);
        self.append(segment);
    }

    /// Whether nothing can follow. A short last packet might where a full one does not fit any
    /// more, but is not worth waiting for.
    pub(super) fn is_full(&self) -> bool {
        self.is_ended
            || self.end + self.first.payload_len > PACKET_LEN_MAX
            || (!self.first.is_tcp() && self.count == UDP_SEGMENTS_MAX)
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
