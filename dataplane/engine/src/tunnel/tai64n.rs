//! The time in an initiation: whoever has taken one takes no older one (paper, section 5.1).

use std::time::Duration;

/// What the low bits are rounded to, as in the kernel: 17 ms, which tells less of our clock, and is less than the
/// interval at which initiations are taken.
const GRAIN_NS: u32 = 1 << 24;
/// The label of TAI64 at the Unix epoch, and the ten seconds that TAI was ahead then.
const UNIX_EPOCH: u64 = (1 << 62) + 10;

/// The timestamp of an initiation: seconds and nanoseconds in big endian (<https://cr.yp.to/libtai/tai64.html>), so
/// that the order is that of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tai64n([u8; 12]);

impl Tai64n {
    /// The timestamp with these bytes; every 12 bytes are one.
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// The bytes as they are in an initiation.
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    /// Reads 24 hexadecimal digits; None for any other text.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 12];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// 24 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The time since the Unix epoch, rounded down.
    pub(crate) fn new(unix_time: Duration) -> Self {
        let seconds = UNIX_EPOCH.saturating_add(unix_time.as_secs());
        let nanoseconds = unix_time.subsec_nanos() / GRAIN_NS * GRAIN_NS;
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&nanoseconds.to_be_bytes());
        Self(bytes)
    }
}

/// The timestamps to one peer, each greater than the one before, whatever the wall clock does.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    greatest: Duration,
}

impl Stamps {
    pub(super) fn next(&mut self, unix_time: Duration) -> Tai64n {
        let grain = Duration::from_nanos(u64::from(GRAIN_NS));
        self.greatest = unix_time.max(self.greatest.saturating_add(grain));
        Tai64n::new(self.greatest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_label_is_that_of_the_standard() {
        let stamp = Tai64n::new(Duration::new(1, (3 << 24) + 5));
        let bytes = [0x40, 0, 0, 0, 0, 0, 0, 0x0b, 3, 0, 0, 0];
        assert_eq!(*stamp.as_bytes(), bytes);
        assert_eq!(stamp.to_hex(), "400000000000000b03000000");
        assert_eq!(Tai64n::from_hex(&stamp.to_hex()), Some(stamp));
        assert_eq!(Tai64n::from_hex("40"), None);
    }

    proptest! {
        #[test]
        fn stamps_grow_whatever_the_clock_does(
            times in prop::collection::vec((0..4u64, 0..1_000_000_000u32), 2..20),
        ) {
            let mut stamps = Stamps::default();
            let mut former = None;
            for (seconds, nanoseconds) in times {
                let stamp = stamps.next(Duration::new(seconds, nanoseconds));
                prop_assert!(former < Some(stamp));
                former = Some(stamp);
            }
        }
    }
}
