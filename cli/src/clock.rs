//! This client's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; none before that.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where the wall clock is read"
)]
pub(crate) fn unix_secs() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
