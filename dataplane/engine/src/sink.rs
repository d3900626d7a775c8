//! Where an engine puts what it makes: straight into the memory that will be sent.

use crate::ecn::Ecn;
use crate::endpoint::Endpoint;

/// The driver's output. The engine reserves room, writes into it, and commits; room that is not committed is undone by
/// the next reservation.
pub trait Sink {
    /// Room for one datagram of exactly `len` bytes to `to`, whose outer header carries `ecn`.
    fn datagram(&mut self, len: usize, to: &Endpoint, ecn: Ecn) -> &mut [u8];

    /// Sends the first `len` bytes of what was last reserved by [`Sink::datagram`].
    fn send(&mut self, len: usize);

    /// Room for one inner packet of at most `len` bytes.
    fn packet(&mut self, len: usize) -> &mut [u8];

    /// Delivers the first `len` bytes of what was last reserved by [`Sink::packet`] to the TUN.
    fn deliver(&mut self, len: usize);
}
