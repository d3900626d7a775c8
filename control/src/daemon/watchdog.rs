//! The supervisor's watchdog. It is fed only while everything that the daemon is made of makes progress, so that a
//! daemon of which one part hangs is started again.
//!
//! A loop proves that it turns by answering to its [`Pulse`], the data plane by telling what it has counted.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::Notify;

use crate::daemon::Daemon;

/// In each period of the watchdog there are this many tries, each of which may take all of its time.
const TRIES: u32 = 3;

/// How a loop is asked whether it still turns.
#[derive(Debug)]
pub(crate) struct Pulse {
    whose: &'static str,
    asked: Notify,
    felt: Notify,
    beats: Cell<u64>,
}

impl Pulse {
    /// A pulse of a loop that has this name.
    pub(crate) fn new(whose: &'static str) -> Rc<Self> {
        Rc::new(Self {
            whose,
            asked: Notify::new(),
            felt: Notify::new(),
            beats: Cell::new(0),
        })
    }

    /// For the loop: answers, once somebody asks. To be waited for wherever the loop waits.
    pub(crate) async fn beat(&self) {
        self.asked.notified().await;
        self.beats.set(self.beats.get() + 1);
        self.felt.notify_one();
    }

    /// Asks, and waits for the answer. A beat that came too late for whoever asked before counts for nothing.
    async fn feel(&self) {
        let before = self.beats.get();
        self.asked.notify_one();
        while self.beats.get() == before {
            self.felt.notified().await;
        }
    }
}

/// Feeds the watchdog, if there is one. Never returns.
pub(crate) async fn feed(daemon: &Daemon) {
    let mut period_usec = 0;
    if !sd_notify::watchdog_enabled(false, &mut period_usec) {
        return std::future::pending().await;
    }
    let span = Duration::from_micros(period_usec) / TRIES;
    let mut ticks = tokio::time::interval(span);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match examine(daemon, span).await {
            Ok(()) => {
                // A supervisor that has gone does not want to hear it.
                let _ = sd_notify::notify(false, &[NotifyState::Watchdog]);
            }
            Err(whose) => {
                tracing::warn!(part = whose, "makes no progress: the watchdog goes hungry")
            }
        }
    }
}

/// Looks at every part; names the first that does not answer within `patience`.
async fn examine(daemon: &Daemon, patience: Duration) -> Result<(), &'static str> {
    let data_plane = tokio::time::timeout(patience, daemon.overlay.snapshot());
    if !matches!(data_plane.await, Ok(Ok(_))) {
        return Err("the data plane");
    }
    for pulse in daemon.pulses() {
        let felt = tokio::time::timeout(patience, pulse.feel());
        felt.await.map_err(|_| pulse.whose)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_turns_is_felt_and_one_that_hangs_is_not() {
        let pulse = Pulse::new("a loop");
        for _ in 0..2 {
            tokio::join!(pulse.beat(), pulse.feel());
        }
        let felt = tokio::time::timeout(PATIENCE, pulse.feel()).await;
        assert!(felt.is_err(), "nobody answered");
        pulse.beat().await;
        let felt = tokio::time::timeout(PATIENCE, pulse.feel()).await;
        assert!(felt.is_err(), "the late answer was to another question");
    }
}
