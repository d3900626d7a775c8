//! Handshake messages on their way from one shard to another.
//!
//! The door takes them all from the network, because load can only be told in one place. What it has admitted and concerns
//! a peer of another shard is handed over to that one, which takes it as admitted. The other way round goes a message that
//! came to another shard, in one piece with data: it was not steered, and still has to pass the door.

use std::collections::VecDeque;

use crate::endpoint::Endpoint;
use crate::message::HANDSHAKE_INITIATION_LEN;
use crate::tunnel::Claim;

/// Messages that may wait for one shard: as many as the door lets through in a second before it asks for cookies. About
/// 350 bytes each.
pub const HAND_OVERS_MAX: usize = 512;

/// A handshake message for another engine of the same interface.
#[derive(Debug)]
pub struct HandOver {
    shard: usize,
    matter: Matter,
    from: Endpoint,
    message: [u8; HANDSHAKE_INITIATION_LEN],
    len: usize,
}

/// What the receiving engine is to do.
#[derive(Debug)]
pub(crate) enum Matter {
    /// Decide whether to admit it.
    Admission,
    /// Answer an initiation that was admitted and of which so much was read.
    Initiation(Claim),
    /// Take a response to this index that was admitted.
    Response(u32),
}

impl HandOver {
    pub(crate) fn new(shard: usize, matter: Matter, from: &Endpoint, datagram: &[u8]) -> Self {
        let mut message = [0; HANDSHAKE_INITIATION_LEN];
        message[..datagram.len()].copy_from_slice(datagram);
        Self {
            shard,
            matter,
            from: *from,
            message,
            len: datagram.len(),
        }
    }

    /// The shard that it is for.
    pub const fn shard(&self) -> usize {
        self.shard
    }

    pub(crate) const fn matter(&self) -> &Matter {
        &self.matter
    }

    /// Where the message came from.
    pub(crate) const fn from(&self) -> &Endpoint {
        &self.from
    }

    pub(crate) fn message(&self) -> &[u8] {
        &self.message[..self.len]
    }
}

/// What waits to be taken out of an engine.
pub(crate) type HandOvers = VecDeque<HandOver>;
