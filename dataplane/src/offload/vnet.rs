//! The vnet header that precedes every packet on a TUN opened with `IFF_VNET_HDR`: `struct
//! virtio_net_hdr` (virtio 1.2, 5.1.6), native-endian on a TUN.

use std::num::NonZeroU16;

use super::malformed::Malformed;

/// The work that the kernel left undone on a packet, or that we leave to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VnetHeader {
    /// A complete packet.
    Whole,
    /// One packet whose checksum field, `offset` bytes into the region that starts at `start` and
    /// ends with the packet, holds only the sum of the pseudo-header.
    PartialChecksum { start: u16, offset: u16 },
    /// A super-packet: headers, then payload for as many segments of `size` bytes as it takes.
    /// Its checksum is partial, with the field where `gso`'s transport has it.
    Super {
        gso: Gso,
        size: NonZeroU16,
        /// A hint: a forwarding kernel puts more than the headers here.
        header_len: u16,
        /// The offset of the transport header.
        transport: u16,
    },
}

/// The kind of cut of a super-packet. `ecn`: the first segment may carry CWR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    TcpV4 { ecn: bool },
    TcpV6 { ecn: bool },
    UdpL4,
}

impl VnetHeader {
    /// The length on the wire, without the field of mergeable receive buffers.
    pub const LEN: usize = 10;

    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let header: &[u8; Self::LEN] = bytes.first_chunk().ok_or(Malformed::VnetTruncated)?;
        let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let (flags, gso_type) = (header[0], header[1]);
        let (start, offset) = (field(6), field(8));
        let needs_checksum = flags & NEEDS_CSUM != 0;
        if gso_type == GSO_NONE {
            return Ok(match needs_checksum {
                true => Self::PartialChecksum { start, offset },
                false => Self::Whole,
            });
        }
        let gso = Gso::parse(gso_type)?;
        if !needs_checksum {
            return Err(Malformed::GsoWithoutChecksum);
        }
        if offset != gso.checksum_offset() {
            return Err(Malformed::ChecksumOffset);
        }
        Ok(Self::Super {
            gso,
            size: NonZeroU16::new(field(4)).ok_or(Malformed::GsoSizeZero)?,
            header_len: field(2),
            transport: start,
        })
    }

    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let (flags, gso_type, fields) = match self {
            Self::Whole => (0, GSO_NONE, [0; 4]),
            Self::PartialChecksum { start, offset } => {
                (NEEDS_CSUM, GSO_NONE, [0, 0, start, offset])
            }
            Self::Super {
                gso,
                size,
                header_len,
                transport,
            } => (
                NEEDS_CSUM,
                gso.to_byte(),
                [header_len, size.get(), transport, gso.checksum_offset()],
            ),
        };
        let mut bytes = [0; Self::LEN];
        bytes[0] = flags;
        bytes[1] = gso_type;
        for (bytes, field) in bytes[2..].chunks_exact_mut(2).zip(fields) {
            bytes.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }
}

impl Gso {
    fn parse(gso_type: u8) -> Result<Self, Malformed> {
        let ecn = gso_type & GSO_ECN != 0;
        match gso_type & !GSO_ECN {
            GSO_TCPV4 => Ok(Self::TcpV4 { ecn }),
            GSO_TCPV6 => Ok(Self::TcpV6 { ecn }),
            GSO_UDP_L4 if !ecn => Ok(Self::UdpL4),
            // Among them UFO (3), which would need IP fragmentation, and tunnel types that a TUN
            // has to opt in to.
            _ => Err(Malformed::GsoType(gso_type)),
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::TcpV4 { ecn } => GSO_TCPV4 | if ecn { GSO_ECN } else { 0 },
            Self::TcpV6 { ecn } => GSO_TCPV6 | if ecn { GSO_ECN } else { 0 },
            Self::UdpL4 => GSO_UDP_L4,
        }
    }

    /// The offset of the checksum in the transport header.
    #[must_use]
    pub fn checksum_offset(self) -> u16 {
        match self {
            Self::TcpV4 { .. } | Self::TcpV6 { .. } => 16,
            Self::UdpL4 => 6,
        }
    }
}

// include/uapi/linux/virtio_net.h
const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(flags: u8, gso_type: u8, fields: [u16; 4]) -> [u8; VnetHeader::LEN] {
        let mut bytes = [flags, gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
        for (index, field) in fields.into_iter().enumerate() {
            bytes[2 + 2 * index..4 + 2 * index].copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    fn size(size: u16) -> NonZeroU16 {
        NonZeroU16::new(size).unwrap()
    }

    #[test]
    fn what_the_kernel_sends() {
        let data_valid = 2;
        let tcp = |gso| VnetHeader::Super {
            gso,
            size: size(1380),
            header_len: 52,
            transport: 20,
        };
        let fields = [52, 1380, 20, 16];
        let table = [
            (raw(0, 0, [0; 4]), VnetHeader::Whole),
            (raw(data_valid, 0, [0; 4]), VnetHeader::Whole),
            (
                raw(1, 0, [0, 0, 40, 6]),
                VnetHeader::PartialChecksum {
                    start: 40,
                    offset: 6,
                },
            ),
            (raw(1, 1, fields), tcp(Gso::TcpV4 { ecn: false })),
            (raw(1, 0x81, fields), tcp(Gso::TcpV4 { ecn: true })),
            (raw(1, 4, fields), tcp(Gso::TcpV6 { ecn: false })),
            (raw(1, 0x84, fields), tcp(Gso::TcpV6 { ecn: true })),
            (
                raw(1, 5, [28, 1200, 20, 6]),
                VnetHeader::Super {
                    gso: Gso::UdpL4,
                    size: size(1200),
                    header_len: 28,
                    transport: 20,
                },
            ),
        ];
        for (bytes, expected) in table {
            assert_eq!(VnetHeader::parse(&bytes), Ok(expected));
            assert_eq!(VnetHeader::parse(&expected.to_bytes()), Ok(expected));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let table = [
            (raw(1, 1, [52, 0, 20, 16]), Malformed::GsoSizeZero),
            (raw(0, 1, [52, 1, 20, 16]), Malformed::GsoWithoutChecksum),
            (raw(1, 1, [52, 1, 20, 6]), Malformed::ChecksumOffset),
            (raw(1, 5, [52, 1, 20, 16]), Malformed::ChecksumOffset),
            (raw(1, 2, [52, 1, 20, 16]), Malformed::GsoType(2)),
            (raw(1, 3, [52, 1, 20, 6]), Malformed::GsoType(3)),
            (raw(1, 0x80, [0; 4]), Malformed::GsoType(0x80)),
            (raw(1, 0x85, [52, 1, 20, 6]), Malformed::GsoType(0x85)),
        ];
        for (bytes, expected) in table {
            assert_eq!(VnetHeader::parse(&bytes), Err(expected));
        }
        assert_eq!(VnetHeader::parse(&[0; 9]), Err(Malformed::VnetTruncated));
    }

    proptest! {
        #[test]
        fn parsed_headers_survive_the_round_trip(bytes: [u8; VnetHeader::LEN]) {
            if let Ok(header) = VnetHeader::parse(&bytes) {
                prop_assert_eq!(VnetHeader::parse(&header.to_bytes()), Ok(header));
            }
        }
    }
}
