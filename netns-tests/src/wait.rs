//! The only clock and the only sleep of the tests.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks at a condition: at first often, then every twentieth part of the time that it has taken. A look is
/// often a process, and many stories share two processors.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(50);

/// Polls `condition` until it holds; fails with `what` once `patience` has run out.
pub fn wait_until(
    what: impl fmt::Display,
    patience: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    wait_for(what, patience, || condition().then_some(()))
}

/// As [`wait_until`], for a condition that yields something.
pub fn wait_for<T>(
    what: impl fmt::Display,
    patience: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let begin = now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if begin.elapsed() >= patience {
            bail!("waited {patience:?} in vain for {what}");
        }
        pause(interval(begin.elapsed()));
    }
}

/// Holds for all of `span`: the proof that something does *not* happen.
pub fn stays(
    what: impl fmt::Display,
    span: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    let begin = now();
    while begin.elapsed() < span {
        if !condition() {
            bail!("within {span:?} it stopped being true that {what}");
        }
        pause(interval(begin.elapsed()));
    }
    Ok(())
}

fn interval(elapsed: Duration) -> Duration {
    (elapsed / 20).clamp(POLL_MIN, POLL_MAX)
}

/// Lets time pass, for what is a span by nature: a pacing interval, the expiry of a kernel timer.
pub fn pause(span: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that lets time pass"
    )]
    std::thread::sleep(span);
}

#[must_use]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the tests' one clock")]
    Instant::now()
}
