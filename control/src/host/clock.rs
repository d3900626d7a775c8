//! The edge where the control plane reads clocks and random numbers.

use std::time::{Duration, Instant, SystemTime};

use ployz_core::Now;

/// The time on both clocks.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge where cores get their clocks"
)]
pub(crate) fn now() -> Now {
    Now {
        instant: Instant::now(),
        unix_secs: since_1970().as_secs(),
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970, as the kernel stamps packets.
pub(crate) fn unix_ns() -> u64 {
    u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX)
}

/// The parts of a new id: milliseconds since 1970, and a random number.
pub(crate) fn id_parts() -> (u64, u128) {
    (unix_ms(), rand::random())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge where cores get their clocks"
)]
fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
