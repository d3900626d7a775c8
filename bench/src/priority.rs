//! Priority over other work on a machine that is never idle.
//!
//! Linux groups processes by session and shares the processors between the groups
//! (sched_autogroup). A heavier group leaves the others a few percent. It outweighs kernel threads
//! as well, which helps no contender in particular; a quiet machine is still better.

use std::sync::Mutex;

use anyhow::{Context as _, Result};

const AUTOGROUP: &str = "/proc/self/autogroup";
/// 28 times the weight of a group with 0.
const NICE: &str = "-15";

static BEFORE: Mutex<Option<String>> = Mutex::new(None);

/// Raises the weight of this session until [`restore`].
pub(crate) fn raise() -> Result<()> {
    let text = std::fs::read_to_string(AUTOGROUP).context("this kernel has no autogroups")?;
    let nice = text.trim().rsplit(' ').next().unwrap_or("0").to_owned();
    std::fs::write(AUTOGROUP, NICE).context(AUTOGROUP)?;
    if let Ok(mut before) = BEFORE.lock() {
        *before = Some(nice);
    }
    Ok(())
}

pub(crate) fn restore() {
    let before = BEFORE.lock().ok().and_then(|mut before| before.take());
    if let Some(nice) = before {
        let _ = std::fs::write(AUTOGROUP, nice);
    }
}
