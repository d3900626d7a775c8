//! Handshake messages on their way from one shard to another.
//!
//! The handshake shard takes them all from the network, because load can only be told in one place. It hands off what
//! it has admitted to the home of the peer in question, which takes it as admitted. In the other direction goes a
//! message that came to another shard because it was received in one piece with data: it still has to be admitted.

use std::collections::VecDeque;

use crate::endpoint::Endpoint;
use crate::message::HANDSHAKE_INITIATION_LEN;
use crate::tunnel::Claim;

/// Messages that may wait for one shard: as many as are admitted in a second before there is load. About 350 bytes
/// each.
pub const HANDOFFS_MAX: usize = 512;

/// A handshake message for another engine of the same interface.
#[derive(Debug)]
pub struct Handoff {
    shard: usize,
    kind: HandoffKind,
    from: Endpoint,
    message: [u8; HANDSHAKE_INITIATION_LEN],
    len: usize,
}

/// The receiving engine's part.
#[derive(Debug)]
pub(crate) enum HandoffKind {
    /// Decide whether to admit it.
    Admission,
    /// Answer an initiation that was admitted and of which so much was read.
    Initiation(Claim),
    /// Take a response to this index that was admitted.
    Response(u32),
}

impl Handoff {
    pub(crate) fn new(shard: usize, kind: HandoffKind, from: &Endpoint, datagram: &[u8]) -> Self {
        let mut message = [0; HANDSHAKE_INITIATION_LEN];
        message[..datagram.len()].copy_from_slice(datagram);
        Self {
            shard,
            kind,
            from: *from,
            message,
            len: datagram.len(),
        }
    }

    /// The shard that it is for.
    pub const fn shard(&self) -> usize {
        self.shard
    }

    pub(crate) const fn kind(&self) -> &HandoffKind {
        &self.kind
    }

    /// The sender's endpoint.
    pub(crate) const fn from(&self) -> &Endpoint {
        &self.from
    }

    pub(crate) fn message(&self) -> &[u8] {
        &self.message[..self.len]
    }
}

/// Handoffs that wait to be taken out of an engine.
pub(crate) type Handoffs = VecDeque<Handoff>;
