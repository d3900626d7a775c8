//! Fields of IPv4, IPv6, TCP and UDP headers: where they are, and reading and writing them.
//!
//! Every `at` is an offset that the caller has checked against the packet's length.

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

pub(super) mod ipv4 {
    pub(crate) const LEN_MIN: usize = 20;
    pub(crate) const SERVICE: usize = 1;
    pub(crate) const TOTAL_LEN: usize = 2;
    pub(crate) const IDENTIFICATION: usize = 4;
    pub(crate) const FRAGMENT: usize = 6;
    pub(crate) const TTL: usize = 8;
    pub(crate) const PROTOCOL: usize = 9;
    pub(crate) const CHECKSUM: usize = 10;
    pub(crate) const SOURCE: usize = 12;
    pub(crate) const DESTINATION: usize = 16;
    pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
    /// The offset of a fragment, in units of eight bytes.
    pub(crate) const OFFSET: u16 = 0x1fff;
    /// The more-fragments bit and the fragment offset.
    pub(crate) const IS_FRAGMENT: u16 = 0x3fff;
}

pub(super) mod ipv6 {
    pub(crate) const LEN: usize = 40;
    pub(crate) const PAYLOAD_LEN: usize = 4;
    pub(crate) const NEXT_HEADER: usize = 6;
    pub(crate) const HOP_LIMIT: usize = 7;
    pub(crate) const SOURCE: usize = 8;
    pub(crate) const DESTINATION: usize = 24;
}

pub(super) mod tcp {
    pub(crate) const LEN_MIN: usize = 20;
    pub(crate) const SEQUENCE: usize = 4;
    pub(crate) const ACKNOWLEDGEMENT: usize = 8;
    /// The word of data offset and flags.
    pub(crate) const FLAGS: usize = 12;
    pub(crate) const WINDOW: usize = 14;
    pub(crate) const CHECKSUM: usize = 16;
    pub(crate) const URGENT: usize = 18;
    pub(crate) const FIN: u16 = 0x0001;
    pub(crate) const PSH: u16 = 0x0008;
    pub(crate) const ACK: u16 = 0x0010;
    pub(crate) const CWR: u16 = 0x0080;
    /// Everything in the word of flags that is not the data offset.
    pub(crate) const FLAGS_MASK: u16 = 0x0fff;

    /// The header's length, from the word of data offset and flags.
    pub(crate) fn header_len(flags: u16) -> usize {
        usize::from(flags >> 12) * 4
    }
}

pub(super) mod udp {
    pub(crate) const LEN: usize = 8;
    pub(crate) const LENGTH: usize = 4;
    pub(crate) const CHECKSUM: usize = 6;
}

/// The IP version that the first byte claims.
pub(super) fn ip_version(packet: &[u8]) -> Option<u8> {
    packet.first().map(|byte| byte >> 4)
}

/// The IPv4 header's length, from the first byte.
pub(super) fn ipv4_header_len(packet: &[u8]) -> Option<usize> {
    packet.first().map(|byte| usize::from(byte & 0x0f) * 4)
}

#[inline]
pub(super) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
pub(super) fn write_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[inline]
pub(super) fn write_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
