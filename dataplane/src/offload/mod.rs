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
mod malformed;
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
pub use malformed::Malformed;
pub use segment::Segments;
pub use too_big::TooBig;
pub use vnet::{Gso, VnetHeader};
