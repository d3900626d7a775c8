//! The output of an engine, written straight into the memory that will be sent.

use std::sync::Arc;

use ployz_aead::Key;

use crate::drops::Drop;
use crate::ecn::Ecn;
use crate::endpoint::Endpoint;
use crate::sealing::seal_messages;

/// The driver's output. Room is lent for datagrams, the engine writes into it, and what was written is passed on.
pub trait Sink {
    /// Lends `len` bytes for one datagram to `to`. `write` fills them all.
    fn datagram(
        &mut self,
        len: usize,
        to: &Endpoint,
        departure: Departure,
        write: impl FnOnce(&mut [u8]),
    );

    /// As [`Self::datagram`], for a data message: `write` fills in all but the tag and says which key it is to be
    /// sealed with ([`seal_messages`]). A sink that has several of one key may seal them together, before they leave.
    fn message<'k>(
        &mut self,
        len: usize,
        to: &Endpoint,
        departure: Departure,
        write: impl FnOnce(&mut [u8]) -> &'k Arc<Key>,
    ) {
        self.datagram(len, to, departure, |room| {
            let key = write(room);
            seal_messages(key, room, len);
        });
    }

    /// No batch holds both a datagram from before this call and one from after it.
    fn part(&mut self);

    /// Delivers one inner packet to the TUN.
    ///
    /// # Errors
    /// [`Drop::NoBuffer`] if there is no memory for it.
    fn packet(&mut self, packet: &[u8]) -> Result<(), Drop>;
}

/// The properties of a datagram that leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// ECN bits of the outer header.
    pub ecn: Ecn,
    /// Company and fragmentation.
    pub mode: SendMode,
}

/// Company and fragmentation of a datagram that leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendMode {
    /// With others of its length in one send (UDP GSO).
    #[default]
    Batched,
    /// By itself: the path mangles batches.
    Single,
    /// By itself, and never in fragments, whatever the kernel believes of the path: a probe of its MTU. It may be lost.
    Whole,
    /// By itself, and in fragments where it does not fit.
    Fragmented,
    /// By itself; the engine wants to know under this name when the kernel saw it leave
    /// ([`crate::Engine::handle_departure`]).
    Stamped(u32),
}

impl SendMode {
    /// The mode of data, on a path that takes batches or does not.
    pub const fn of_data(batched: bool) -> Self {
        if batched { Self::Batched } else { Self::Single }
    }
}

impl Departure {
    /// Without ECN.
    pub const fn new(mode: SendMode) -> Self {
        Self {
            ecn: Ecn::NotEct,
            mode,
        }
    }
}
