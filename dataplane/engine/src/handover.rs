//! Handshake messages on their way from one shard to another.
//!
//! The door takes them all from the network, because load can only be told in one place. What it has admitted and
//! concerns a peer of another shard is handed over to that one, which takes it as admitted. The other way round goes a
//! message that came to another shard, in one piece with data: it was not steered, and still has to pass the door.

use std::collections::VecDeque;
use std::time::Instant;

use crate::drops::Drop;
use crate::endpoint::Endpoint;
use crate::engine::Engine;
use crate::message::{HANDSHAKE_INITIATION_LEN, Message};
use crate::sink::Sink;
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
    /// The shard that it is for.
    pub const fn shard(&self) -> usize {
        self.shard
    }
}

/// What waits to be taken out of an engine.
pub(crate) type HandOvers = VecDeque<HandOver>;

impl Engine {
    /// A message for another shard's [`Engine::handle_hand_over`]. Call until `None` after every turn.
    pub fn poll_hand_over(&mut self) -> Option<HandOver> {
        self.hand_overs.pop_front()
    }

    /// Takes a message that another engine of the same interface has handed over.
    pub fn handle_hand_over(&mut self, now: Instant, it: &HandOver, sink: &mut impl Sink) {
        debug_assert_eq!(it.shard, self.place.shard());
        let (from, message) = (&it.from, &it.message[..it.len]);
        let outcome = match &it.matter {
            Matter::Admission => {
                self.handle_handshake(now, from, Message::parse(message), message, sink)
            }
            Matter::Initiation(claim) => self.answer_initiation(now, from, claim, message, sink),
            Matter::Response(receiver_index) => {
                self.take_response(now, from, *receiver_index, message, sink)
            }
        };
        if let Err(reason) = outcome {
            self.drops.count(reason);
        }
    }

    /// Keeps a handshake message for another shard.
    pub(crate) fn hand_over(
        &mut self,
        shard: usize,
        matter: Matter,
        from: &Endpoint,
        datagram: &[u8],
    ) -> Result<(), Drop> {
        if self.hand_overs.len() == HAND_OVERS_MAX {
            return Err(Drop::HandOver);
        }
        let mut message = [0; HANDSHAKE_INITIATION_LEN];
        message[..datagram.len()].copy_from_slice(datagram);
        self.hand_overs.push_back(HandOver {
            shard,
            matter,
            from: *from,
            message,
            len: datagram.len(),
        });
        Ok(())
    }
}
