//! Messages that were admitted a moment ago: the same again is refused before anything is computed.

use super::keyed_hash::KeyedHash;
use crate::tunnel::mac::MacBytes;

/// A message is forgotten when another falls into its place: at the 500 a second that are admitted without cookies
/// after eight seconds on average. A sender that repeats a message has one handshake computed in that time. 64 KiB.
const PLACES: usize = 1 << 12;

/// First MACs of admitted messages. To make another's message look like one of these takes a second preimage of the
/// MAC.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// Empty until the first message.
    places: Box<[MacBytes]>,
}

impl Repeats {
    /// True if the message with this first MAC was admitted a moment ago. The MAC need not be right.
    pub(super) fn contains(&self, hash: &KeyedHash, mac1: &MacBytes) -> bool {
        !self.places.is_empty() && self.places[place(hash, mac1)] == *mac1
    }

    pub(super) fn insert(&mut self, hash: &KeyedHash, mac1: &MacBytes) {
        if self.places.is_empty() {
            self.places = vec![[0; _]; PLACES].into_boxed_slice();
        }
        self.places[place(hash, mac1)] = *mac1;
    }
}

fn place(hash: &KeyedHash, mac1: &MacBytes) -> usize {
    hash.of(mac1) as usize % PLACES
}
