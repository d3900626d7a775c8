//! Where an engine puts what it makes: straight into the memory that will be sent.

use crate::drops::Drop;
use crate::ecn::Ecn;
use crate::endpoint::Endpoint;

/// The driver's output. Room is lent, the engine writes into it, and what was written is passed on.
pub trait Sink {
    /// Lends `len` bytes for one datagram to `to`. `write` fills them all.
    fn datagram(
        &mut self,
        len: usize,
        to: &Endpoint,
        departure: Departure,
        write: impl FnOnce(&mut [u8]),
    );

    /// No batch holds both a datagram from before this call and one from after it.
    fn part(&mut self);

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

/// How a datagram leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// ECN bits of the outer header.
    pub ecn: Ecn,
    /// In which company, and in how many pieces.
    pub manner: Manner,
}

/// In which company a datagram leaves, and in how many pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// With others of its length in one send (UDP GSO).
    #[default]
    Batched,
    /// By itself: the path mangles batches.
    Single,
    /// By itself, and never in fragments, whatever the kernel believes of the path: a probe of its MTU. It may be lost.
    Whole,
    /// By itself, and in fragments where it does not fit.
    Fragmented,
    /// By itself; the engine wants to know under this name when the kernel saw it leave ([`crate::Engine::handle_departure`]).
    Stamped(u32),
}

impl Manner {
    /// That of data, on a path that takes batches or does not.
    pub const fn of_data(batched: bool) -> Self {
        if batched { Self::Batched } else { Self::Single }
    }
}

impl Departure {
    /// Without ECN.
    pub const fn new(manner: Manner) -> Self {
        Self {
            ecn: Ecn::NotEct,
            manner,
        }
    }
}
