//! The shards of an interface as one of them reaches the others.

use std::sync::Arc;

use ployz_engine::{Drop, Engine};

use crate::inbox::Neighbour;

/// All of them, in their order; one does not write to itself.
#[derive(Clone, Debug)]
pub(crate) struct Neighbours(Arc<[Neighbour]>);

impl Neighbours {
    /// Takes them in their order.
    pub(crate) fn new(all: impl IntoIterator<Item = Neighbour>) -> Self {
        Self(all.into_iter().collect())
    }

    /// Delivers what an engine has for others.
    pub(crate) fn deliver(&self, engine: &mut Engine) {
        while let Some(message) = engine.poll_handoff() {
            if !self.0[message.shard()].send(message) {
                engine.count_drop(Drop::Handoff);
            }
        }
    }
}
