//! The supervisor's watchdog. It is fed only while everything that the daemon is made of makes progress, so that a
//! daemon of which one part hangs is started again.
//!
//! A loop proves that it turns by answering its [`Heartbeat`], the data plane by telling what it has counted.

use std::rc::Rc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::host::heartbeat::Heartbeat;
use crate::machine::Machine;

/// In each period of the watchdog there are this many tries, each of which may take all of its time.
const TRIES: u32 = 3;

/// Feeds the watchdog, if there is one. Never returns.
pub(crate) async fn feed(machine: &Machine, heartbeats: impl Fn() -> Vec<Rc<Heartbeat>>) {
    let mut period_usec = 0;
    if !sd_notify::watchdog_enabled(false, &mut period_usec) {
        return std::future::pending().await;
    }
    let span = Duration::from_micros(period_usec) / TRIES;
    let mut ticks = tokio::time::interval(span);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match examine(machine, &heartbeats(), span).await {
            Ok(()) => {
                // A supervisor that has gone does not want to hear it.
                let _ = sd_notify::notify(false, &[NotifyState::Watchdog]);
            }
            Err(part) => {
                tracing::warn!(
                    part,
                    "task is not responding; withholding the systemd watchdog ping"
                );
            }
        }
    }
}

/// Checks every part; names the first that does not answer within `patience`.
async fn examine(
    machine: &Machine,
    heartbeats: &[Rc<Heartbeat>],
    patience: Duration,
) -> Result<(), &'static str> {
    let data_plane = tokio::time::timeout(patience, machine.overlay.snapshot());
    if !matches!(data_plane.await, Ok(Ok(_))) {
        return Err("the data plane");
    }
    for heartbeat in heartbeats {
        let answered = tokio::time::timeout(patience, heartbeat.check());
        answered.await.map_err(|_| heartbeat.name())?;
    }
    Ok(())
}
