//! Gives handshake messages to the other engines of the interface, and takes theirs.

use std::time::Instant;

use crate::drops::Drop;
use crate::endpoint::Endpoint;
use crate::engine::Engine;
use crate::handover::{HAND_OVERS_MAX, HandOver, Matter};
use crate::message::Message;
use crate::sink::Sink;

impl Engine {
    /// A message for another shard's [`Engine::handle_hand_over`]. Call until `None` after every turn.
    pub fn poll_hand_over(&mut self) -> Option<HandOver> {
        self.hand_overs.pop_front()
    }

    /// Takes a message that another engine of the same interface has handed over.
    pub fn handle_hand_over(&mut self, now: Instant, it: &HandOver, sink: &mut impl Sink) {
        debug_assert_eq!(it.shard(), self.place.shard());
        let (from, message) = (it.from(), it.message());
        let outcome = match it.matter() {
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
        self.hand_overs
            .push_back(HandOver::new(shard, matter, from, datagram));
        Ok(())
    }
}
