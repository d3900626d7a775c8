//! Time and randomness for the engines: the one place where the data plane reads a clock.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use ployz_engine::{Reading, Sources};
use rand::TryRngCore as _;
use rand::rngs::OsRng;

/// The time now.
#[expect(
    clippy::disallowed_methods,
    reason = "the drivers are where time comes from"
)]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

/// Both clocks at nearly one moment: of a few tries, the one in which the least time passed between them.
pub(crate) fn read_clocks() -> Reading {
    const TRIES: u32 = 3;
    let read = || {
        let before_ns = clock_ns(ClockId::CLOCK_BOOTTIME);
        let wall_ns = clock_ns(ClockId::CLOCK_REALTIME);
        let after_ns = clock_ns(ClockId::CLOCK_BOOTTIME);
        let between_ns = after_ns - before_ns;
        let reading = Reading {
            monotonic_ns: before_ns + between_ns / 2,
            wall_ns,
        };
        (between_ns, reading)
    };
    let best = (1..TRIES).fold(read(), |best, _| {
        // A vDSO call takes some tens of nanoseconds.
        if best.0 < 1_000 {
            best
        } else {
            std::cmp::min_by_key(best, read(), |it| it.0)
        }
    });
    best.1
}

/// The kernel's randomness, of which nothing stays in our memory, and the wall clock.
pub(crate) fn sources() -> Sources {
    let random = |bytes: &mut [u8]| OsRng.try_fill_bytes(bytes).expect("getrandom(2) works");
    let unix_time = || Duration::from_nanos(clock_ns(ClockId::CLOCK_REALTIME));
    Sources {
        random: Box::new(random),
        unix_time: Box::new(unix_time),
    }
}

/// Zero if there is no such clock, which Linux does not know.
fn clock_ns(id: ClockId) -> u64 {
    let time = clock_gettime(id).map_or(Duration::ZERO, Duration::from);
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
