//! Waiting, within a budget, until the machine is idle.

use std::fs::File;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::usage::Usage;
use crate::{clock, console};

/// Allows one run at a time: two would measure each other.
const LOCK: &str = "/run/ployz-bench.lock";
/// The share of a processor that other work may take on a machine that counts as idle.
pub(crate) const DISTURBANCE_MAX: f64 = 0.06;
const LOOK: Duration = Duration::from_millis(250);

/// Held until dropped.
pub(crate) fn lock() -> Result<File> {
    let file = File::create(LOCK).context(LOCK)?;
    if file.try_lock().is_err() {
        console::progress("another run has the machine, waiting for it to end");
        file.lock()?;
    }
    Ok(file)
}

/// How much longer this run may wait for other work to pause.
#[derive(Debug)]
pub(crate) struct Patience {
    left: Duration,
}

impl Patience {
    pub(crate) fn new(budget: Duration) -> Self {
        Self { left: budget }
    }

    /// Returns when the machine is idle or patience has run out.
    pub(crate) fn wait(&mut self) -> Result<()> {
        while !self.left.is_zero() {
            let before = Usage::read(&[])?;
            clock::pause(LOOK.min(self.left));
            let spent = Usage::read(&[])?.since(&before);
            if spent.disturbance() <= DISTURBANCE_MAX {
                break;
            }
            self.left = self.left.saturating_sub(spent.elapsed);
        }
        Ok(())
    }
}
