//! Packets at a steady rate.

use std::time::Duration;

use anyhow::Result;
use nix::sys::prctl;

use crate::clock;

/// The paced sender sleeps this long between bursts: 10 packets at 100,000 a second.
const TICK: Duration = Duration::from_micros(100);
/// A sender that the scheduler left waiting does not make up for more than this.
const ARREARS: Duration = Duration::from_millis(1);

/// The load and its rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Packets a second; `None` for as many as possible.
    pub(crate) rate: Option<f64>,
    pub(crate) duration: Duration,
    /// The most packets that one call may send.
    pub(crate) burst: u64,
    /// Send whole bursts only, where less would undo the offload.
    pub(crate) whole_bursts: bool,
}

/// The packets that were sent, and the time that it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered {
    pub(crate) packets: u64,
    pub(crate) elapsed: Duration,
}

/// A source of load.
pub(crate) trait Source {
    /// Sends for `duration` at `rate` packets a second, or as fast as it can.
    fn offer(&mut self, rate: Option<f64>, duration: Duration, trial: u32) -> Result<Offered>;
}

impl Pace {
    /// Calls `send` with a count and the number of the first packet; it returns how many it sent.
    pub(crate) fn run(&self, mut send: impl FnMut(usize, u64) -> Result<u64>) -> Result<Offered> {
        // The default slack of 50 us would be half a tick.
        prctl::set_timerslack(1)?;
        let started = clock::now();
        let mut packets = 0;
        let mut forgiven = 0.0;
        loop {
            let elapsed = started.elapsed();
            if elapsed >= self.duration {
                return Ok(Offered { packets, elapsed });
            }
            let count = self.due(elapsed, packets, &mut forgiven).min(self.burst);
            if count == 0 || (self.whole_bursts && count < self.burst) {
                clock::pause(TICK);
                continue;
            }
            packets += send(usize::try_from(count)?, packets)?;
        }
    }

    fn due(&self, elapsed: Duration, packets: u64, forgiven: &mut f64) -> u64 {
        let Some(rate) = self.rate else {
            return self.burst;
        };
        let due = elapsed.as_secs_f64() * rate - *forgiven - packets as f64;
        let arrears_max = rate * ARREARS.as_secs_f64() + self.burst as f64;
        *forgiven += (due - arrears_max).max(0.0);
        due.max(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        rate: Some(100_000.0),
        duration: Duration::from_millis(50),
        burst: 64,
        whole_bursts: false,
    };

    #[test]
    fn a_second_late_is_not_made_up_for() {
        let mut forgiven = 0.0;
        let late = Duration::from_secs(1);
        assert_eq!(PACE.due(late, 0, &mut forgiven), 100_000);
        assert_eq!(PACE.due(late, 0, &mut forgiven), 100 + 64);
    }

    #[test]
    fn every_packet_has_a_number_of_its_own() {
        let mut next = 0;
        let offered = PACE.run(|count, first| {
            assert_eq!(first, next);
            next += count as u64;
            Ok(count as u64)
        });
        let offered = offered.unwrap();
        assert_eq!(offered.packets, next);
        assert!(offered.packets <= 5_100, "{offered:?}");
    }
}
