//! The clock of the round trips: the kernel stamps packets with the wall clock, which may be set; the engine compares
//! stamps on a clock that only goes forward.

use crate::outer_header::WallNs;
use crate::stamp::{Stamp, Stamper};

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Nanoseconds on a clock that is never set and does not stop while the machine sleeps, since whenever.
    pub monotonic_ns: u64,
    /// The wall clock.
    pub wall_ns: WallNs,
}

/// Reads both clocks.
pub type ReadClocks = Box<dyn Fn() -> Reading + Send>;

/// Two readings of one moment are at most so far apart; the wall clock is slewed together with the other, so all else
/// is a step.
const STEP_MIN_NS: u64 = 20_000;
/// A stamp is read within this time, or it says nothing: no longer than a reply is waited for. After a step as long
/// goes by until stamps are believed again, because until then some may be from before it.
const STAMP_AGE_MAX_NS: u64 = 2_000_000_000;

/// Turns stamps of the kernel into ours.
pub(crate) struct StampClock {
    read: ReadClocks,
    /// Wall clock less monotonic clock at the last reading, in wrapping arithmetic.
    offset_ns: Option<u64>,
    /// The time at which the wall clock was last found to be set, on the monotonic clock.
    stepped_ns: Option<u64>,
}

impl StampClock {
    pub(crate) fn new(read: ReadClocks) -> Self {
        Self {
            read,
            offset_ns: None,
            stepped_ns: None,
        }
    }

    /// The time now.
    pub(crate) fn now(&self) -> Stamp {
        Stamp {
            ns: (self.read)().monotonic_ns,
            by: Stamper::User,
        }
    }

    /// The time now, and that of a packet that the kernel stamped a moment ago. If the wall clock was set a moment ago,
    /// the stamp may be from before or after that, and there is none.
    pub(crate) fn convert(&mut self, stamped: Option<WallNs>) -> (Stamp, Option<Stamp>) {
        let reading = (self.read)();
        let now = Stamp {
            ns: reading.monotonic_ns,
            by: Stamper::User,
        };
        let offset_ns = reading.wall_ns.wrapping_sub(reading.monotonic_ns);
        let former = self.offset_ns.replace(offset_ns);
        let is_step = |former: u64| {
            let change = offset_ns.wrapping_sub(former).cast_signed();
            change.unsigned_abs() > STEP_MIN_NS
        };
        if former.is_some_and(is_step) {
            self.stepped_ns = Some(now.ns);
        }
        let stepped = self
            .stepped_ns
            .is_some_and(|at| now.ns.saturating_sub(at) <= STAMP_AGE_MAX_NS);
        let age_ns = stamped.and_then(|at| reading.wall_ns.checked_sub(at));
        let stamp = age_ns
            .filter(|age_ns| !stepped && *age_ns <= STAMP_AGE_MAX_NS)
            .and_then(|age_ns| now.ns.checked_sub(age_ns))
            .map(|ns| Stamp {
                ns,
                by: Stamper::Kernel,
            });
        (now, stamp)
    }
}

impl std::fmt::Debug for StampClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StampClock").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that reads these, one after the other.
    fn clock(readings: Vec<(u64, u64)>) -> StampClock {
        let readings = std::cell::RefCell::new(readings.into_iter());
        StampClock::new(Box::new(move || {
            let (monotonic_ns, wall_ns) = readings.borrow_mut().next().unwrap();
            Reading {
                monotonic_ns,
                wall_ns,
            }
        }))
    }

    #[test]
    fn a_stamp_is_as_old_on_either_clock() {
        let mut clock = clock(vec![(5_000, 1_000_000)]);
        let (now, stamp) = clock.convert(Some(999_990));
        assert_eq!(now.ns, 5_000);
        assert_eq!(stamp.map(|stamp| stamp.ns), Some(4_990));
    }

    /// Half a millisecond before and after a step, and then again and again: whichever way it was and however far.
    #[test]
    fn a_stamp_from_before_the_wall_clock_was_set_is_none() {
        const WALL_NS: u64 = 1_700_000_000_000_000_000;
        const STEP_AT_NS: u64 = 10_000_000;
        let steps =
            [1_000_000_000, STEP_MIN_NS + 1, 400_000, 7_200_000_000_000].map(u64::cast_signed);
        for step_ns in steps.into_iter().flat_map(|step_ns| [step_ns, -step_ns]) {
            let wall_ns = |monotonic_ns: u64| {
                let step_ns = if monotonic_ns < STEP_AT_NS {
                    0
                } else {
                    step_ns
                };
                (WALL_NS + monotonic_ns).saturating_add_signed(step_ns)
            };
            let readings = (0..60).map(|n| STEP_AT_NS - 500_000 + n * 50_000_000);
            let mut clock = clock(readings.clone().map(|ns| (ns, wall_ns(ns))).collect());
            let mut believed = 0;
            for ns in readings {
                let stamped_ns = ns - 400_000;
                let (_, stamp) = clock.convert(Some(wall_ns(stamped_ns)));
                assert!(stamp.is_none_or(|it| it.ns == stamped_ns), "{step_ns} {ns}");
                believed += u32::from(stamp.is_some());
            }
            assert_eq!(
                believed,
                1 + 60 - 42,
                "{step_ns}: after a while all is well"
            );
        }
    }

    /// What came while the process stood still is read in one go: the first reading finds the step, and the second
    /// knows.
    #[test]
    fn a_second_stamp_from_before_the_step_is_none_either() {
        let step_ns = 300_000_000;
        let mut clock = clock(vec![
            (5_000_000_000, 9_000_000_000),
            (5_400_000_000, 9_400_000_000 + step_ns),
            (5_400_000_100, 9_400_000_100 + step_ns),
        ]);
        assert!(clock.convert(Some(9_000_000_000)).1.is_some());
        assert_eq!(clock.convert(Some(9_100_000_000)).1, None);
        assert_eq!(clock.convert(Some(9_200_000_000)).1, None);
    }

    #[test]
    fn a_stamp_of_the_future_or_of_long_ago_is_none() {
        let wall_ns = 9_000_000_000;
        let mut clock = clock(vec![(8_000_000_000, wall_ns); 3]);
        assert_eq!(clock.convert(Some(wall_ns + 1)).1, None);
        assert_eq!(clock.convert(Some(wall_ns - STAMP_AGE_MAX_NS - 1)).1, None);
        assert!(clock.convert(Some(wall_ns - STAMP_AGE_MAX_NS)).1.is_some());
    }
}
