//! How many buffers to lend to the kernel at a time.
//!
//! What one turn brings in should stay in the cache, and a turn should bring in as much as it can: few buffers while
//! reads are long, many while they are short (`docs/decisions/0004-buffers.md`).

/// What a turn may bring in from one source: half of a 1 MiB L2 cache, the other half is for what is made of it.
const TURN_LEN: usize = 512 << 10;
/// So many reads of full length.
const DEPTH_MIN: usize = 8;
/// The share of a new read in the average is one in this many.
const MEMORY: usize = 16;

/// A number of buffers that follows the length of what is read.
#[derive(Debug)]
pub(crate) struct Depth {
    /// Bytes, times [`MEMORY`].
    average_len: usize,
    max: u16,
}

impl Depth {
    /// At most `max`, and at first as if every read were as long as can be.
    pub(crate) const fn new(max: u16) -> Self {
        Self {
            average_len: TURN_LEN / DEPTH_MIN * MEMORY,
            max,
        }
    }

    /// Learns from a read of `len` bytes.
    pub(crate) const fn observe(&mut self, len: usize) {
        self.average_len = self.average_len - self.average_len / MEMORY + len;
    }

    /// How many to lend.
    pub(crate) fn get(&self) -> u16 {
        let reads = TURN_LEN * MEMORY / self.average_len.max(1);
        let reads = u16::try_from(reads.max(DEPTH_MIN)).unwrap_or(u16::MAX);
        reads.min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_reads_deepen_it_and_long_ones_make_it_shallow_again() {
        let mut depth = Depth::new(64);
        assert_eq!(depth.get(), 8);
        for _ in 0..100 {
            depth.observe(74);
        }
        assert_eq!(depth.get(), 64);
        for _ in 0..100 {
            depth.observe(64_000);
        }
        assert_eq!(depth.get(), 8);
    }

    #[test]
    fn a_turn_stays_within_its_bytes() {
        for len in [0, 1, 1_420, 9_000, 20_000, 65_535] {
            let mut depth = Depth::new(1 << 10);
            for _ in 0..1_000 {
                depth.observe(len);
            }
            let reads = usize::from(depth.get());
            assert!(reads == DEPTH_MIN || reads * len <= TURN_LEN + len * reads / MEMORY);
        }
    }
}
