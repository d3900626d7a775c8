//! The exchange of handshake messages with the other engines of the interface.

use std::time::Instant;

use crate::drops::Drop;
use crate::endpoint::Endpoint;
use crate::engine::Engine;
use crate::handoff::{HANDOFFS_MAX, Handoff, HandoffKind};
use crate::message::Message;
use crate::sink::Sink;

impl Engine {
    /// A message for another shard's [`Engine::handle_handoff`]. Call until `None` after every turn.
    pub fn poll_handoff(&mut self) -> Option<Handoff> {
        self.handoffs.pop_front()
    }

    /// Takes a message that another engine of the same interface has handed off.
    pub fn handle_handoff(&mut self, now: Instant, it: &Handoff, sink: &mut impl Sink) {
        debug_assert_eq!(it.shard(), self.shard_map.shard());
        let (from, message) = (it.from(), it.message());
        let outcome = match it.kind() {
            HandoffKind::Admission => {
                self.handle_handshake(now, from, Message::parse(message), message, sink)
            }
            HandoffKind::Initiation(claim) => {
                self.answer_initiation(now, from, claim, message, sink)
            }
            HandoffKind::Response(receiver_index) => {
                self.take_response(now, from, *receiver_index, message, sink)
            }
        };
        if let Err(reason) = outcome {
            self.drops.count(reason);
        }
    }

    /// Keeps a handshake message for another shard.
    pub(crate) fn hand_off(
        &mut self,
        shard: usize,
        kind: HandoffKind,
        from: &Endpoint,
        datagram: &[u8],
    ) -> Result<(), Drop> {
        if self.handoffs.len() == HANDOFFS_MAX {
            return Err(Drop::Handoff);
        }
        self.handoffs
            .push_back(Handoff::new(shard, kind, from, datagram));
        Ok(())
    }
}
