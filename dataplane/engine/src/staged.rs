//! Packets that wait for a handshake: few, the newest kept.

use std::collections::VecDeque;

/// Packets per peer, as the kernel's `MAX_STAGED_PACKETS`. With 1500-byte packets that is 187 KiB.
const PACKETS_MAX: usize = 128;

/// First in, first out, bounded.
#[derive(Debug, Default)]
pub(crate) struct StagedPackets(VecDeque<Box<[u8]>>);

impl StagedPackets {
    /// Copies `packet` in; true if the oldest had to go for it.
    pub(crate) fn push(&mut self, packet: &[u8]) -> bool {
        let full = self.0.len() == PACKETS_MAX;
        if full {
            self.0.pop_front();
        }
        self.0.push_back(packet.into());
        full
    }

    pub(crate) fn pop(&mut self) -> Option<Box<[u8]>> {
        self.0.pop_front()
    }

    /// Forgets all and says how many there were.
    pub(crate) fn clear(&mut self) -> usize {
        std::mem::take(&mut self.0).len()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_is_reported() {
        let mut staged = StagedPackets::default();
        for i in 0..PACKETS_MAX {
            assert!(!staged.push(&[i as u8]));
        }
        assert!(staged.push(&[0xff]));
        assert_eq!(staged.len(), PACKETS_MAX);
        assert_eq!(staged.pop().as_deref(), Some(&[1u8][..]));
        assert_eq!(staged.clear(), PACKETS_MAX - 1);
        assert_eq!(staged.pop(), None);
    }
}
