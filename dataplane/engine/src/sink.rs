//! Where an engine puts what it makes: straight into the memory that will be sent.

use crate::drops::Drop;
use crate::ecn::Ecn;
use crate::endpoint::Endpoint;

/// The driver's output. Both methods lend room, let the engine write into it, and pass on what was written.
pub trait Sink {
    /// Lends `len` bytes for one datagram to `to`, whose outer header carries `ecn`. `write` fills them all.
    fn datagram(&mut self, len: usize, to: &Endpoint, ecn: Ecn, write: impl FnOnce(&mut [u8]));

    /// Lends `len` bytes for one inner packet and delivers to the TUN as many of them as `write` says, none for zero.
    ///
    /// # Errors
    /// The error of `write`, or [`Drop::NoBuffer`] if there is no room to lend.
    fn packet(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, Drop>,
    ) -> Result<(), Drop>;
}
