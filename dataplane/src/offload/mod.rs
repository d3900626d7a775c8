//! Segmentation and coalescing between the TUN and the tunnel: pure functions over bytes.
//!
//! The kernel hands over TCP and UDP in super-packets of up to 64 KiB when a TUN carries a vnet
//! header. [`Segments`] cuts one into the packets that the tunnel seals; [`Coalescer`] joins
//! packets that the tunnel opened into super-packets for one TUN write each. Neither does I/O,
//! reads a clock, or allocates per packet.
//!
//! To the TUN and back:
//!
//! ```text
//! TUN read -> Segments::from_read -> next_packet()* -> seal -> datagrams
//! datagrams -> open into Coalescer::room -> commit -> flush -> pop_ready()* -> TUN write
//! ```

mod batch;
mod buffer;
pub mod checksum;
mod coalesce;
mod flow;
mod fragments;
mod headers;
mod segment;
pub mod too_big;
pub mod vnet;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod testkit;

pub use buffer::TunBuffer;
pub use coalesce::{Capabilities, Coalescer};
pub use fragments::Fragments;
pub use segment::Segments;
pub use too_big::TooBig;
pub use vnet::{Gso, VnetHeader};

/// Why a TUN read cannot be cut into packets.
///
/// The kernel produces none of these, so each is a counter to look at and not a path to tune.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("shorter than a vnet header")]
    VnetTruncated,
    #[error("unknown or unsupported GSO type {0:#04x}")]
    GsoType(u8),
    #[error("a GSO packet with a segment size of zero")]
    GsoSizeZero,
    #[error("a GSO packet without a partial checksum")]
    GsoWithoutChecksum,
    #[error("the checksum offset does not fit the transport of the GSO type")]
    ChecksumOffset,
    #[error("the checksum field lies outside the packet")]
    ChecksumOutside,
    #[error("the vnet header's header length exceeds the packet")]
    HeaderLength,
    #[error("the packet ends within its headers")]
    Truncated,
    #[error("the IP version or protocol does not fit the GSO type")]
    Protocol,
    #[error("the transport header does not start where the checksum starts")]
    TransportOffset,
    #[error("a GSO packet that is an IP fragment")]
    Fragment,
    #[error("the length in the IP or UDP header disagrees with the packet")]
    Length,
}
