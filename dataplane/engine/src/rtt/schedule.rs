//! When to probe a peer.
//!
//! A burst when the peer is new or somebody asks, then one probe in a while, as long as the session is in use: a probe is data
//! to WireGuard, and would keep a session alive that nobody needs.

use std::time::{Duration, Instant};

/// Probes of a burst.
const BURST_LEN: u32 = 20;
/// Between two of a burst, and what the engine's tick rounds everything to.
const BURST_INTERVAL: Duration = Duration::from_millis(100);
/// Between two probes of a session in use.
const STEADY_INTERVAL: Duration = Duration::from_secs(5);
/// The same with a peer that has never answered: it may be a stock one, or be replaced by one of ours.
const SILENT_INTERVAL: Duration = Duration::from_secs(60);
/// A session without traffic for so long is not in use.
const USE_LIMIT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Schedule {
    burst_left: u32,
    next: Instant,
    /// How long after a burst the first of the others comes: peers that came together are not probed together.
    phase: Duration,
    used_at: Option<Instant>,
}

impl Schedule {
    /// That of a peer that is new: a burst, now. `random` sets it apart from others.
    pub(crate) fn new(now: Instant, random: u32) -> Self {
        Self {
            burst_left: BURST_LEN,
            next: now,
            phase: STEADY_INTERVAL.mul_f64(f64::from(random) / f64::from(u32::MAX)),
            used_at: None,
        }
    }

    /// Asks for a burst.
    pub(crate) fn burst(&mut self, now: Instant) {
        self.burst_left = BURST_LEN;
        self.next = now;
    }

    /// True if a probe is due. `used` says that there was traffic other than probes since the last call, `answered` that the
    /// peer has ever answered one.
    pub(crate) fn is_due(&mut self, now: Instant, used: bool, answered: bool) -> bool {
        if used {
            self.used_at = Some(now);
        }
        let in_use = self
            .used_at
            .is_some_and(|at| now.saturating_duration_since(at) < USE_LIMIT);
        if now < self.next || (self.burst_left == 0 && !in_use) {
            return false;
        }
        let interval = match self.burst_left {
            0 if !answered => SILENT_INTERVAL,
            0 => STEADY_INTERVAL,
            1 => self.phase.max(BURST_INTERVAL),
            _ => BURST_INTERVAL,
        };
        self.burst_left = self.burst_left.saturating_sub(1);
        self.next = now + interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[expect(clippy::disallowed_methods, reason = "a test is a driver")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Probes sent in `seconds` of ticks, and the clock after them.
    fn probes(
        schedule: &mut Schedule,
        now: &mut Instant,
        seconds: u32,
        used: impl Fn(u32) -> bool,
    ) -> u32 {
        let mut sent = 0;
        for tick in 0..seconds * 10 {
            sent += u32::from(schedule.is_due(*now, used(tick), true));
            *now += TICK;
        }
        sent
    }

    #[test]
    fn a_new_peer_gets_a_burst_and_then_one_probe_in_five_seconds() {
        let mut now = start();
        let mut schedule = Schedule::new(now, u32::MAX);
        assert_eq!(probes(&mut schedule, &mut now, 2, |_| true), BURST_LEN);
        assert_eq!(probes(&mut schedule, &mut now, 1000, |_| true), 200);
    }

    #[test]
    fn nobody_is_kept_awake_who_is_not_used() {
        let mut now = start();
        let mut schedule = Schedule::new(now, 0);
        assert_eq!(probes(&mut schedule, &mut now, 10, |_| false), BURST_LEN);
        assert_eq!(probes(&mut schedule, &mut now, 1000, |_| false), 0);
        // One packet makes it a session in use for a minute.
        let once = probes(&mut schedule, &mut now, 1000, |tick| tick == 0);
        assert_eq!(once, 12);
    }

    #[test]
    fn a_silent_peer_is_asked_once_a_minute() {
        let mut now = start();
        let mut schedule = Schedule::new(now, 0);
        let mut sent = 0;
        for _ in 0..10 * 602 {
            sent += u32::from(schedule.is_due(now, true, false));
            now += TICK;
        }
        assert_eq!(sent, BURST_LEN + 10);
    }

    #[test]
    fn who_asks_gets_a_burst_at_once() {
        let mut now = start();
        let mut schedule = Schedule::new(now, 0);
        probes(&mut schedule, &mut now, 100, |_| false);
        schedule.burst(now);
        assert_eq!(probes(&mut schedule, &mut now, 2, |_| false), BURST_LEN);
    }
}
