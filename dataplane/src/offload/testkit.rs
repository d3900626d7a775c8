//! Packets built byte by byte, and the stupid twins of the checksum and of segmentation.

use std::num::NonZeroU16;

use proptest::prelude::*;

use super::vnet::{Gso, VnetHeader};

/// The Internet checksum's sum the way RFC 1071 describes it: byte pairs, one after the other.
pub(super) fn twin_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const CWR: u8 = 0x80;

/// A packet in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) v6: bool,
    pub(super) host: u8,
    pub(super) ports: [u16; 2],
    pub(super) service: u8,
    pub(super) hop_limit: u8,
    pub(super) dont_fragment: bool,
    pub(super) identification: u16,
    /// IPv4 options or IPv6 extension headers.
    pub(super) extra: Vec<u8>,
    pub(super) transport: Transport,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp {
        sequence: u32,
        acknowledgement: u32,
        flags: u8,
        window: u16,
        options: Vec<u8>,
    },
    Udp {
        has_checksum: bool,
    },
}

impl Spec {
    pub(super) fn tcp() -> Self {
        Self {
            v6: false,
            host: 1,
            ports: [443, 50_000],
            service: 0,
            hop_limit: 64,
            dont_fragment: true,
            identification: 7,
            extra: vec![],
            transport: Transport::Tcp {
                sequence: 1_000,
                acknowledgement: 2_000,
                flags: ACK,
                window: 501,
                options: vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
            },
            payload: vec![],
        }
    }

    pub(super) fn udp() -> Self {
        Self {
            transport: Transport::Udp { has_checksum: true },
            ..Self::tcp()
        }
    }

    pub(super) fn with_payload(mut self, len: usize, seed: u8) -> Self {
        self.payload = (0..len)
            .map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed))
            .collect();
        self
    }

    pub(super) fn is_tcp(&self) -> bool {
        matches!(self.transport, Transport::Tcp { .. })
    }

    pub(super) fn flags_mut(&mut self) -> Option<&mut u8> {
        match &mut self.transport {
            Transport::Tcp { flags, .. } => Some(flags),
            Transport::Udp { .. } => None,
        }
    }

    pub(super) fn header_len(&self) -> usize {
        self.transport_at() + self.transport_header().len()
    }

    pub(super) fn transport_at(&self) -> usize {
        (if self.v6 { 40 } else { 20 }) + self.extra.len()
    }

    fn protocol(&self) -> u8 {
        if self.is_tcp() { 6 } else { 17 }
    }

    fn checksum_offset(&self) -> usize {
        if self.is_tcp() { 16 } else { 6 }
    }

    fn addresses(&self) -> Vec<u8> {
        let mut addresses = vec![];
        for last in [self.host, 200] {
            match self.v6 {
                true => addresses.extend([0xfd, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, last]),
                false => addresses.extend([10, 101, 7, last]),
            }
        }
        addresses
    }

    fn transport_header(&self) -> Vec<u8> {
        let mut header = vec![];
        header.extend(self.ports[0].to_be_bytes());
        header.extend(self.ports[1].to_be_bytes());
        match &self.transport {
            Transport::Tcp {
                sequence,
                acknowledgement,
                flags,
                window,
                options,
            } => {
                header.extend(sequence.to_be_bytes());
                header.extend(acknowledgement.to_be_bytes());
                header.push((((20 + options.len()) / 4) << 4) as u8);
                header.push(*flags);
                header.extend(window.to_be_bytes());
                header.extend([0; 4]);
                header.extend(options);
            }
            Transport::Udp { .. } => {
                header.extend((8 + self.payload.len() as u16).to_be_bytes());
                header.extend([0; 2]);
            }
        }
        header
    }

    fn ip_header(&self, behind: usize) -> Vec<u8> {
        let mut header = vec![];
        if self.v6 {
            header.extend([0x60 | self.service >> 4, self.service << 4, 0x12, 0x34]);
            header.extend(((self.extra.len() + behind) as u16).to_be_bytes());
            // 60: destination options
            header.push(if self.extra.is_empty() {
                self.protocol()
            } else {
                60
            });
            header.push(self.hop_limit);
            header.extend(self.addresses());
            header.extend(&self.extra);
            return header;
        }
        header.push(0x45 + (self.extra.len() / 4) as u8);
        header.push(self.service);
        header.extend(((20 + self.extra.len() + behind) as u16).to_be_bytes());
        header.extend(self.identification.to_be_bytes());
        header.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
        header.extend([self.hop_limit, self.protocol(), 0, 0]);
        header.extend(self.addresses());
        header.extend(&self.extra);
        let checksum = !twin_sum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn pseudo_header(&self, transport_len: usize) -> Vec<u8> {
        let mut bytes = self.addresses();
        bytes.extend((transport_len as u32).to_be_bytes());
        bytes.extend([0, 0, 0, self.protocol()]);
        bytes
    }

    fn assemble(&self, checksum: impl FnOnce(&[u8], &[u8]) -> u16) -> Vec<u8> {
        let mut segment = self.transport_header();
        segment.extend(&self.payload);
        let checksum = checksum(&self.pseudo_header(segment.len()), &segment);
        let at = self.checksum_offset();
        segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        let mut packet = self.ip_header(segment.len());
        packet.extend(segment);
        packet
    }

    /// The packet as it is on the wire.
    pub(super) fn packet(&self) -> Vec<u8> {
        let is_udp = !self.is_tcp();
        let none = Transport::Udp {
            has_checksum: false,
        };
        self.assemble(|pseudo_header, segment| {
            match !twin_sum(&[pseudo_header, segment].concat()) {
                _ if self.transport == none => 0,
                0 if is_udp => 0xffff,
                checksum => checksum,
            }
        })
    }

    /// The packet as the kernel hands it over, its checksum partial.
    pub(super) fn partial(&self) -> Vec<u8> {
        self.assemble(|pseudo_header, _| twin_sum(pseudo_header))
    }

    pub(super) fn vnet_partial(&self) -> VnetHeader {
        VnetHeader::PartialChecksum {
            start: self.transport_at() as u16,
            offset: self.checksum_offset() as u16,
        }
    }

    pub(super) fn vnet_super(&self, size: usize) -> VnetHeader {
        VnetHeader::Super {
            gso: match (self.is_tcp(), self.v6) {
                (true, false) => Gso::TcpV4 { ecn: false },
                (true, true) => Gso::TcpV6 { ecn: false },
                (false, _) => Gso::UdpL4,
            },
            size: NonZeroU16::new(size as u16).unwrap(),
            header_len: self.header_len() as u16,
            transport: self.transport_at() as u16,
        }
    }

    /// The TUN read of this super-packet.
    pub(super) fn read(&self, size: usize) -> Vec<u8> {
        let mut read = self.vnet_super(size).to_bytes().to_vec();
        read.extend(self.partial());
        read
    }

    /// The twin of segmentation: each packet from its own description.
    pub(super) fn cut(&self, size: usize) -> Vec<Self> {
        let last = self.payload.len().div_ceil(size).max(1) - 1;
        (0..=last)
            .map(|index| {
                let mut spec = self.clone();
                let payload = &self.payload[(index * size).min(self.payload.len())..];
                spec.payload = payload[..size.min(payload.len())].to_vec();
                spec.identification = self.identification.wrapping_add(index as u16);
                if let Transport::Tcp {
                    sequence, flags, ..
                } = &mut spec.transport
                {
                    *sequence = sequence.wrapping_add((index * size) as u32);
                    if index != 0 {
                        *flags &= !CWR;
                    }
                    if index != last {
                        *flags &= !(FIN | PSH);
                    }
                }
                spec
            })
            .collect()
    }
}

/// Any packet with `payload_len` bytes of payload.
pub(super) fn spec(
    flags: impl Strategy<Value = u8>,
    payload_len: std::ops::Range<usize>,
) -> impl Strategy<Value = Spec> {
    let transport = prop_oneof![
        3 => (any::<u32>(), any::<u32>(), flags, any::<u16>(), 0usize..=10, any::<u8>()).prop_map(
            |(sequence, acknowledgement, flags, window, options, seed)| Transport::Tcp {
                sequence,
                acknowledgement,
                flags,
                window,
                options: (0..options * 4).map(|index| seed ^ index as u8).collect(),
            }
        ),
        1 => Just(Transport::Udp { has_checksum: true }),
    ];
    let network = (
        any::<bool>(),
        any::<u8>(),
        any::<u8>(),
        any::<bool>(),
        any::<u16>(),
    );
    (
        network,
        any::<[u16; 2]>(),
        transport,
        payload_len,
        any::<u8>(),
    )
        .prop_map(
            |(
                (v6, service, hop_limit, dont_fragment, identification),
                ports,
                transport,
                len,
                seed,
            )| {
                Spec {
                    v6,
                    host: 1,
                    ports,
                    service,
                    hop_limit,
                    dont_fragment,
                    identification,
                    extra: vec![],
                    transport,
                    payload: vec![],
                }
                .with_payload(len, seed)
            },
        )
}
