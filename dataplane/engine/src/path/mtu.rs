//! The search for a path's MTU with probes inside the tunnel, in the manner of RFC 8899 (DPLPMTUD).
//!
//! Probes are sent in rounds, several sizes at once, and the largest that is answered counts. So a search takes a few
//! round trips instead of one for each size, and a size has failed only when a smaller one of its round has arrived. A
//! full buffer on the way also drops the large ones first, so before a smaller path is believed the next larger size
//! fails three times more.
//!
//! ```text
//!   Start    {1280, ceiling} ──ceiling──▶ settled        ──nothing──▶ rests, longer each time: a stock peer is silent
//!            └──only 1280──▶ Search
//!   Search   sixteen sizes between what passed and what did not ──▶ ... ──▶ Verify
//!            └──what did not pass before──▶ Search above it
//!   Verify   {largest, next, next, next} ──only largest──▶ settled    ──next──▶ Search above it    ──nothing──▶ rests
//!   Confirm  {settled} ──▶ settled                       ──nothing──▶ Doubt
//!   Doubt    {1280, settled, settled} ──▶ settled        ──only 1280──▶ Search    ──nothing──▶ rests: the path is down
//! ```
//!
//! Sizes are those of whole IP packets outside the tunnel, in bytes.

use std::time::{Duration, Instant};

/// `BASE_PLPMTU`: what is taken for granted, the smallest MTU of IPv6.
pub(crate) const BASE: usize = 1280;
/// Probes of a round.
pub(crate) const ROUND_MAX: usize = 16;
/// Between two confirmations while large packets are sent. A change has to be found, searched and told within 2 s.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(200);
/// When a smaller path is searched again for a larger MTU: soon, as what made it small may have been a moment's, then
/// twice as long each time up to the `PMTU_RAISE_TIMER`.
const RAISE_INTERVAL_MIN: Duration = Duration::from_secs(10);
const RAISE_INTERVAL: Duration = Duration::from_secs(600);
/// The first rest after a round without any answer; doubled up to [`RAISE_INTERVAL`] for a peer that never answered.
const REST: Duration = Duration::from_secs(1);
/// How long a round waits for answers: two round trips, within these bounds.
const WAIT_MIN: Duration = Duration::from_millis(80);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The sizes of one round, ascending.
pub(crate) type Sizes = Vec<usize>;

/// See the module.
#[derive(Debug)]
pub(crate) struct MtuSearch {
    /// The largest packet that the tunnel can make: there is no use in knowing more.
    ceiling: usize,
    settled: Option<usize>,
    round: Option<Round>,
    /// Names the round that is under way, in its probes and their answers.
    id: u16,
    rest_until: Option<Instant>,
    raise_at: Option<Instant>,
    raise_interval: Duration,
    /// Rounds in a row that nothing has answered.
    silent_rounds: u32,
    round_trip: Option<Duration>,
}

#[derive(Debug)]
struct Round {
    kind: Kind,
    sizes: Sizes,
    sent_at: Instant,
    /// The largest size that was answered.
    best: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Start,
    Confirm,
    Doubt,
    /// Between `low`, which has passed, and the last size of the round.
    Search {
        low: usize,
    },
    /// The first size of the round has passed, the next larger one never.
    Verify,
}

impl MtuSearch {
    /// Nothing is known, and nothing larger than `ceiling` is ever sent.
    pub(crate) fn new(ceiling: usize) -> Self {
        Self {
            ceiling: ceiling.max(BASE),
            settled: None,
            round: None,
            id: 0,
            rest_until: None,
            raise_at: None,
            raise_interval: RAISE_INTERVAL_MIN,
            silent_rounds: 0,
            round_trip: None,
        }
    }

    /// The path's MTU, once it is known.
    pub(crate) fn settled(&self) -> Option<usize> {
        self.settled
    }

    pub(crate) fn ceiling(&self) -> usize {
        self.ceiling
    }

    /// What the probes of the current round are called.
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// A probe of `size` bytes of the round `id` has arrived.
    pub(crate) fn on_answer(&mut self, now: Instant, id: u16, size: usize) {
        let Some(round) = &mut self.round else {
            return;
        };
        if id != self.id || !round.sizes.contains(&size) {
            return;
        }
        round.best = round.best.max(Some(size));
        self.silent_rounds = 0;
        let sample = now.saturating_duration_since(round.sent_at);
        let former = self.round_trip.unwrap_or(sample);
        self.round_trip = Some(sample.max((former * 7 + sample) / 8));
    }

    /// The sizes to probe now, if a round begins. `busy` says that large packets are being sent.
    pub(crate) fn poll(&mut self, now: Instant, busy: bool) -> Option<Sizes> {
        let next = match self.round.take() {
            Some(round) if !self.is_over(now, &round) => {
                self.round = Some(round);
                return None;
            }
            Some(round) => self.conclude(now, round),
            None if busy && self.rest_until.is_none_or(|until| now >= until) => {
                Some(self.first_round(now))
            }
            None => None,
        };
        let (kind, sizes) = next?;
        self.id = self.id.wrapping_add(1);
        self.round = Some(Round {
            kind,
            sizes: sizes.clone(),
            sent_at: now,
            best: None,
        });
        Some(sizes)
    }

    fn is_over(&self, now: Instant, round: &Round) -> bool {
        let wait = self.round_trip.map_or(WAIT_MAX, |round_trip| {
            (round_trip * 2).clamp(WAIT_MIN, WAIT_MAX)
        });
        round.best == round.sizes.last().copied()
            || now.saturating_duration_since(round.sent_at) >= wait
    }

    fn first_round(&self, now: Instant) -> (Kind, Sizes) {
        match self.settled {
            None => (Kind::Start, vec![BASE, self.ceiling]),
            Some(mtu) if mtu < self.ceiling && self.raise_at.is_some_and(|at| now >= at) => {
                narrow(mtu, self.ceiling)
            }
            Some(mtu) => (Kind::Confirm, vec![mtu]),
        }
    }

    /// What follows from a round: another one, or rest.
    fn conclude(&mut self, now: Instant, round: Round) -> Option<(Kind, Sizes)> {
        let top = round.sizes.last().copied().unwrap_or(BASE);
        match (round.kind, round.best) {
            (Kind::Search { .. } | Kind::Verify, Some(best)) if best == top => {
                self.search_above(now, top)
            }
            (Kind::Search { low }, best) => {
                let low = best.unwrap_or(low);
                let high = round.sizes.into_iter().find(|size| *size > low);
                Some(narrow(low, high.unwrap_or(top)))
            }
            (Kind::Verify, Some(best)) => self.settle(now, best),
            (Kind::Confirm, None) => Some((Kind::Doubt, vec![BASE, top, top])),
            (Kind::Start | Kind::Doubt | Kind::Verify, None) => self.rest(now),
            (Kind::Confirm, Some(_)) => {
                self.rest_until = Some(now + CONFIRM_INTERVAL);
                None
            }
            (Kind::Start | Kind::Doubt, Some(best)) if best == top => self.settle(now, best),
            (Kind::Start | Kind::Doubt, Some(best)) => Some(narrow(best, top)),
        }
    }

    /// `passed` has, and whatever was thought to fail above it may do so as well.
    fn search_above(&mut self, now: Instant, passed: usize) -> Option<(Kind, Sizes)> {
        if passed == self.ceiling {
            return self.settle(now, passed);
        }
        Some(narrow(passed, self.ceiling))
    }

    fn settle(&mut self, now: Instant, mtu: usize) -> Option<(Kind, Sizes)> {
        self.raise_interval = if self.settled == Some(mtu) {
            (self.raise_interval * 2).min(RAISE_INTERVAL)
        } else {
            RAISE_INTERVAL_MIN
        };
        self.settled = Some(mtu);
        self.rest_until = Some(now + CONFIRM_INTERVAL);
        self.raise_at = Some(now + self.raise_interval);
        None
    }

    /// Nobody answers, not even the smallest: that says nothing about sizes.
    fn rest(&mut self, now: Instant) -> Option<(Kind, Sizes)> {
        let rest = match self.settled {
            Some(_) => REST,
            None => (REST * 2_u32.saturating_pow(self.silent_rounds)).min(RAISE_INTERVAL),
        };
        self.silent_rounds = self.silent_rounds.saturating_add(1).min(16);
        self.rest_until = Some(now + rest);
        None
    }
}

/// `low` has passed and `high` has not: what to send next.
fn narrow(low: usize, high: usize) -> (Kind, Sizes) {
    if high - low > 1 {
        return search(low, high);
    }
    (Kind::Verify, vec![low, high, high, high])
}

/// Up to [`ROUND_MAX`] sizes above `low`, evenly up to `high`.
fn search(low: usize, high: usize) -> (Kind, Sizes) {
    let range = high - low;
    let count = range.min(ROUND_MAX);
    let sizes = (1..=count).map(|i| low + range * i / count).collect();
    (Kind::Search { low }, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[expect(clippy::disallowed_methods, reason = "a test is a driver")]
    fn start() -> Instant {
        Instant::now()
    }

    /// A path that drops what is longer than its MTU, and of the rest what `loses` says.
    struct World {
        now: Instant,
        search: MtuSearch,
        mtu: usize,
        sent: usize,
    }

    impl World {
        fn new(ceiling: usize, mtu: usize) -> Self {
            Self {
                now: start(),
                search: MtuSearch::new(ceiling),
                mtu,
                sent: 0,
            }
        }

        /// One tick of a sender that is busy.
        fn tick(&mut self, mut loses: impl FnMut() -> bool) {
            if let Some(sizes) = self.search.poll(self.now, true) {
                assert!(sizes.len() <= ROUND_MAX && sizes.is_sorted(), "{sizes:?}");
                self.sent += sizes.len();
                for size in sizes {
                    assert!((BASE..=self.search.ceiling()).contains(&size));
                    if size <= self.mtu && !loses() {
                        let id = self.search.id();
                        self.search.on_answer(self.now, id, size);
                    }
                }
            }
            self.now += TICK;
        }

        fn ticks_until(&mut self, settled: usize) -> u32 {
            for ticks in 0..200 {
                if self.search.settled() == Some(settled) {
                    return ticks;
                }
                self.tick(|| false);
            }
            panic!("{:?} instead of {settled}", self.search.settled());
        }
    }

    #[test]
    fn every_mtu_is_found_to_the_byte_within_a_second() {
        for mtu in 1280..=9000 {
            for ceiling in [1480, 1500, 9000] {
                let mut world = World::new(ceiling, mtu);
                let ticks = world.ticks_until(mtu.min(ceiling));
                assert!(ticks <= 10, "{mtu} of {ceiling} took {ticks} ticks");
            }
        }
    }

    #[test]
    fn a_path_that_takes_everything_costs_two_probes() {
        let mut world = World::new(1500, 9000);
        world.ticks_until(1500);
        assert_eq!(world.sent, 2);
    }

    #[test]
    fn a_path_that_shrinks_is_measured_anew_within_one_and_a_half_seconds() {
        for (before, after) in [(1500, 1280), (1500, 1499), (9000, 1500), (9000, 1281)] {
            let mut world = World::new(9000, before);
            world.ticks_until(before);
            world.mtu = after;
            let ticks = world.ticks_until(after);
            assert!(ticks <= 15, "{before} to {after} took {ticks} ticks");
        }
    }

    #[test]
    fn a_path_that_grows_is_found_when_the_timer_says_so() {
        let mut world = World::new(1500, 1300);
        world.ticks_until(1300);
        world.mtu = 1500;
        world.now += RAISE_INTERVAL_MIN;
        assert!(world.ticks_until(1500) <= 10);
    }

    #[test]
    fn a_path_that_stays_small_is_searched_ever_more_rarely() {
        let mut world = World::new(1500, 1300);
        world.ticks_until(1300);
        let a_day = 24 * 3600 * 10;
        let mut searches = 0;
        for _ in 0..a_day {
            let before = world.sent;
            world.tick(|| false);
            searches += u32::from(world.sent - before == ROUND_MAX);
        }
        // 10, 20, ... 320 s after one another, then every ten minutes.
        assert!((145..=155).contains(&searches), "{searches}");
    }

    #[test]
    fn a_path_that_is_down_keeps_its_mtu_and_is_asked_once_a_second() {
        let mut world = World::new(1500, 1500);
        world.ticks_until(1500);
        world.mtu = 0;
        let before = world.sent;
        for _ in 0..100 {
            world.tick(|| false);
        }
        assert_eq!(world.search.settled(), Some(1500));
        assert!(world.sent - before <= 5 * 10, "{}", world.sent - before);
        world.mtu = 1400;
        assert!(world.ticks_until(1400) <= 25);
    }

    #[test]
    fn a_peer_that_never_answers_is_asked_ever_more_rarely() {
        let mut world = World::new(1500, 0);
        let an_hour = 36_000;
        for _ in 0..an_hour {
            world.tick(|| false);
        }
        assert_eq!(world.search.settled(), None);
        assert!((20..=40).contains(&world.sent), "{}", world.sent);
    }

    #[test]
    fn an_idle_sender_probes_nothing() {
        let mut search = MtuSearch::new(1500);
        assert_eq!(search.poll(start(), false), None);
    }

    #[test]
    fn loss_is_not_taken_for_a_smaller_path() {
        let mut seed = 1_u32;
        let mut world = World::new(1500, 1500);
        world.ticks_until(1500);
        // An hour with a tenth of the probes lost.
        for _ in 0..36_000 {
            world.tick(|| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                seed >> 24 < 26
            });
            assert_eq!(world.search.settled(), Some(1500));
        }
    }

    #[test]
    fn a_full_buffer_that_drops_large_probes_for_a_while_is_not_taken_for_a_smaller_path() {
        // All that is longer than 1400 is lost for so many ticks from the first probe on.
        for ticks in 0..=2 {
            let mut world = World::new(9000, 1400);
            for _ in 0..ticks {
                world.tick(|| false);
            }
            world.mtu = 9000;
            assert!(world.ticks_until(9000) <= 10, "after {ticks} ticks");
        }
    }

    #[test]
    fn answers_from_elsewhere_change_nothing() {
        let mut search = MtuSearch::new(1500);
        let now = start();
        search.on_answer(now, 0, 9000);
        let sizes = search.poll(now, true);
        assert_eq!(sizes, Some(vec![1280, 1500]));
        search.on_answer(now, search.id().wrapping_add(1), 1500);
        search.on_answer(now, search.id(), 1400);
        assert_eq!(search.poll(now + TICK, true), None, "it still waits");
        assert_eq!(search.settled(), None);
    }
}
