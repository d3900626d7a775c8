//! IP packets: built as the input says, checked and compared the stupid way.

use std::collections::BTreeMap;

use super::input::Input;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const DONT_FRAGMENT: u16 = 0x4000;

/// Builds packets of a few flows, whose TCP sequences go on from one packet to the next.
#[derive(Default)]
pub(crate) struct Builder {
    sequences: [u32; 16],
    /// Counts packets, as the identification of an IPv4 packet that may be fragmented has to.
    built: u16,
}

/// What a packet is made of.
struct Spec {
    v6: bool,
    tcp: bool,
    /// 10.0.0.x or fd00::x, and 10.1.y.x for y other than zero.
    source: [u8; 2],
    destination: u8,
    port: u8,
    service: u8,
    dont_fragment: bool,
    flags: u8,
    window: u8,
    options: usize,
    payload_len: usize,
}

impl Builder {
    /// A packet with up to `payload_max` bytes of payload, whole and right but for what the input alters at the end.
    pub(crate) fn packet(&mut self, input: &mut Input<'_>, payload_max: usize) -> Vec<u8> {
        let (mut packet, transport_at, _) = self.build(input, payload_max);
        let checksum_at = transport_at + if is_tcp(&packet) { 16 } else { 6 };
        let has_checksum = input.byte() % 8 != 1;
        if has_checksum || is_tcp(&packet) {
            let checksum = match !transport_sum(&packet, transport_at) {
                0 => 0xffff,
                checksum => checksum,
            };
            packet[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        input.alter(&mut packet);
        packet
    }

    /// A super-packet as the kernel hands it over, vnet header included; the input may alter it.
    pub(crate) fn tun_read(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let size = input.word();
        // Thousands of packets a read would leave few reads a second.
        let payload_max = if size < 256 { 1_000 } else { 60_000 };
        let (mut packet, transport_at, header_len) = self.build(input, payload_max);
        let (tcp, v6) = (is_tcp(&packet), packet[0] >> 4 == 6);
        let checksum_offset: u16 = if tcp { 16 } else { 6 };
        let partial = pseudo_sum(&packet, packet.len() - transport_at);
        let checksum_at = transport_at + usize::from(checksum_offset);
        packet[checksum_at..checksum_at + 2].copy_from_slice(&partial.to_be_bytes());
        let (flags, gso, size) = match (input.byte() % 4, tcp, v6) {
            (0, ..) => (1, 0, 0),
            (_, false, _) => (1, 5, size),
            (_, true, false) => (1, 1, size),
            (_, true, true) => (1, 4, size),
        };
        let mut read = vec![flags, gso];
        let fields = [
            header_len as u16,
            size,
            transport_at as u16,
            checksum_offset,
        ];
        for field in fields {
            read.extend(field.to_ne_bytes());
        }
        read.extend(packet);
        input.alter(&mut read);
        read
    }

    /// Everything but the transport checksum; also where the transport header starts and where the payload does.
    fn build(&mut self, input: &mut Input<'_>, payload_max: usize) -> (Vec<u8>, usize, usize) {
        let spec = Spec::read(input, payload_max);
        let sequence = &mut self.sequences[usize::from(spec.port)];
        let transport = spec.transport(*sequence);
        *sequence = sequence.wrapping_add(spec.payload_len as u32);
        self.built = self.built.wrapping_add(1);
        let mut packet = spec.network(self.built, transport.len() + spec.payload_len);
        let transport_at = packet.len();
        packet.extend(transport);
        let header_len = packet.len();
        packet.extend((0..spec.payload_len).map(|index| (index as u8).wrapping_mul(31)));
        (packet, transport_at, header_len)
    }
}

impl Spec {
    fn read(input: &mut Input<'_>, payload_max: usize) -> Self {
        let (kind, more) = (input.byte(), input.byte());
        let whole = more & 0x10 == 0;
        Self {
            v6: kind & 1 != 0,
            tcp: kind & 2 == 0,
            source: [kind >> 2 & 3, 2 + (kind >> 4 & 1)],
            destination: 1 + (kind >> 5 & 1),
            port: kind & 3 | kind >> 4 & 0xc,
            service: input.byte(),
            dont_fragment: more & 1 == 0,
            flags: match more & 0x42 {
                2 => ACK | PSH,
                0x42 => ACK | more,
                _ => ACK,
            },
            window: more >> 5,
            options: usize::from(more >> 2 & 3) * 4,
            payload_len: if whole {
                input.below(payload_max + 1)
            } else {
                usize::from(input.byte())
            },
        }
    }

    fn transport(&self, sequence: u32) -> Vec<u8> {
        let mut header = vec![0x10, self.port, 0x20, 0];
        if !self.tcp {
            header.extend((8 + self.payload_len as u16).to_be_bytes());
            header.extend([0; 2]);
            return header;
        }
        header.extend(sequence.to_be_bytes());
        header.extend([0, 0, 0, 9, ((20 + self.options) << 2) as u8]);
        header.extend([self.flags, 1, self.window, 0, 0, 0, 0]);
        header.resize(header.len() + self.options, 1);
        header
    }

    fn network(&self, identification: u16, behind: usize) -> Vec<u8> {
        let protocol = if self.tcp { TCP } else { UDP };
        let [network, host] = self.source;
        if self.v6 {
            let mut header = vec![0x60 | self.service >> 4, self.service << 4, 0, 0];
            header.extend((behind as u16).to_be_bytes());
            header.extend([protocol, 64]);
            for (network, host) in [(network, host), (0, self.destination)] {
                header.extend([0xfd, network, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
            }
            return header;
        }
        let fragment = if self.dont_fragment { DONT_FRAGMENT } else { 0 };
        let mut header = vec![0x45, self.service];
        header.extend((20 + behind as u16).to_be_bytes());
        header.extend(identification.to_be_bytes());
        header.extend(fragment.to_be_bytes());
        header.extend([64, protocol, 0, 0]);
        header.extend([10, u8::from(network != 0), network, host]);
        header.extend([10, 0, 0, self.destination]);
        let checksum = !sum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }
}

/// What must be the same after coalescing and cutting: within an epoch each flow has the same packets in the same
/// order. A packet that could be of any flow ends an epoch.
pub(crate) fn epochs<'a>(packets: impl IntoIterator<Item = &'a [u8]>) -> Vec<Epoch> {
    let mut epochs = vec![Epoch::default()];
    for packet in packets {
        let last = epochs.len() - 1;
        match flow(packet) {
            Some(flow) => epochs[last]
                .flows
                .entry(flow)
                .or_default()
                .push(normal(packet)),
            None => {
                epochs[last].ends_with = packet.to_vec();
                epochs.push(Epoch::default());
            }
        }
    }
    epochs
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Epoch {
    flows: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    ends_with: Vec<u8>,
}

/// Addresses, protocol and ports of a packet that may be coalesced.
fn flow(packet: &[u8]) -> Option<Vec<u8>> {
    let transport_at = transport_at(packet)?;
    let least = if is_tcp(packet) { 20 } else { 8 };
    if packet.len() < transport_at + least {
        return None;
    }
    let addresses = if transport_at == 20 {
        &packet[12..20]
    } else {
        &packet[8..40]
    };
    let ports = &packet[transport_at..transport_at + 4];
    Some([addresses, &[protocol(packet)], ports].concat())
}

/// A packet without what coalescing may change: the identification of a packet that must not be fragmented, and the
/// checksum of a UDP datagram that had none.
fn normal(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let Some(at) = transport_at(&packet) else {
        return packet;
    };
    if !is_tcp(&packet) && transport_sum(&packet, at) == 0xffff {
        packet[at + 6..at + 8].fill(0);
    }
    if at == 20 && packet[6] == 0x40 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

/// Where the transport header starts, in a TCP or UDP packet with nothing odd about its IP header.
pub(crate) fn transport_at(packet: &[u8]) -> Option<usize> {
    let at = match packet.first()? {
        0x45 if packet.len() >= 20 => {
            let plain = word(packet, 6) & !DONT_FRAGMENT == 0
                && usize::from(word(packet, 2)) == packet.len()
                && sum(&packet[..20]) == 0xffff
                && word(packet, 10) != 0xffff;
            plain.then_some(20)
        }
        0x60..0x70 if packet.len() >= 40 => {
            (usize::from(word(packet, 4)) + 40 == packet.len()).then_some(40)
        }
        _ => None,
    }?;
    [TCP, UDP].contains(&protocol(packet)).then_some(at)
}

/// 0xffff if the transport checksum is right.
pub(crate) fn transport_sum(packet: &[u8], transport_at: usize) -> u16 {
    add(
        pseudo_sum(packet, packet.len() - transport_at),
        sum(&packet[transport_at..]),
    )
}

/// The sum of the pseudo-header of an IP packet whose transport has `len` bytes.
pub(crate) fn pseudo_sum(packet: &[u8], len: usize) -> u16 {
    let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
    let tail = [0, protocol(packet), (len >> 8) as u8, len as u8];
    add(sum(&packet[addresses]), sum(&tail))
}

/// The Internet checksum's sum, byte pair by byte pair (RFC 1071).
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        add(sum, u16::from_be_bytes([pair[0], low]))
    })
}

fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn is_tcp(packet: &[u8]) -> bool {
    protocol(packet) == TCP
}

fn protocol(packet: &[u8]) -> u8 {
    packet[if packet[0] >> 4 == 4 { 9 } else { 6 }]
}
