//! The memory of one TUN write.

use std::fmt;

use super::vnet::VnetHeader;

/// A vnet header and the packet behind it, ready to be written to the TUN.
///
/// The bytes live on the heap and stay where they are when the value moves, so the owner can park
/// it with an operation in flight and recycle it after the completion.
pub struct TunBuffer {
    bytes: Box<[u8]>,
    len: usize,
}

/// The longest packet whose length fits the IP header's field.
pub(super) const PACKET_LEN_MAX: usize = 65_535;

impl TunBuffer {
    /// 10 + 65,535 bytes. A datagram is at most 65,527, so it fits with its tag and padding.
    pub const CAPACITY: usize = VnetHeader::LEN + PACKET_LEN_MAX;

    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: vec![0; Self::CAPACITY].into_boxed_slice(),
            len: 0,
        }
    }

    /// The bytes to write.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The same, for [`super::Segments::from_read`] to cut up a write that the kernel refused.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// The room for a packet, behind the vnet header.
    pub(super) fn packet(&self) -> &[u8] {
        &self.bytes[VnetHeader::LEN..]
    }

    pub(super) fn packet_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[VnetHeader::LEN..]
    }

    /// Completes the write: the packet that is in place, behind `vnet`.
    pub(super) fn finish(&mut self, vnet: VnetHeader, packet_len: usize) {
        self.bytes[..VnetHeader::LEN].copy_from_slice(&vnet.to_bytes());
        self.len = VnetHeader::LEN + packet_len;
    }
}

impl Default for TunBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TunBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunBuffer").field("len", &self.len).finish()
    }
}
