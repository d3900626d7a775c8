//! The name of a peer within one engine.

/// Names a peer within one engine for as long as the peer exists; a later peer may get the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PeerId(u32);

impl PeerId {
    /// The name of the peer in this slot of the table.
    pub(crate) const fn of_slot(slot: usize) -> Self {
        Self(slot as u32)
    }

    /// The peer's slot in the table.
    pub(crate) const fn slot(self) -> usize {
        self.0 as usize
    }
}
