//! The one place that reads the clock and waits: an instrument that measures time has to.

#![expect(
    clippy::disallowed_methods,
    reason = "the harness is a driver: real time is what it measures, and pacing is what it does"
)]

use std::time::{Duration, Instant, SystemTime};

pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Lets real time pass: between two packets of a paced stream, or between two polls.
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Polls `ready` every 200 us until it yields something or `limit` has passed.
pub(crate) fn poll<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + limit;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if now() >= deadline {
            return None;
        }
        pause(Duration::from_micros(200));
    }
}
