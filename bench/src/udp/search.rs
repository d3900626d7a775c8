//! The highest rate whose loss stays within a bound. Knows nothing of sockets.

use anyhow::Result;

use super::trial::Trial;

/// The bracket is closed when its ends are this close.
const PRECISION: f64 = 1.03;
/// The first step up, and what each further one is multiplied by: a blast that collapsed says
/// little, so the search must get away from it.
const GROW: f64 = 1.3;
const SHRINK: f64 = 0.75;
/// Up 160 times in seven steps and seven bisections fit; down, 0.75^16 is one percent.
const STEPS_MAX: u32 = 16;
/// A sender that cannot offer this much of what it is asked for has reached its own limit.
const OFFERED_MIN: f64 = 0.95;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    /// Packets received a second at the highest rate within the bound; 0 when there is none.
    pub(crate) pps: f64,
    /// Sent as fast as possible.
    pub(crate) blast: Trial,
    pub(crate) reordered: u64,
    /// The sender's share of a processor at that rate.
    pub(crate) sender_busy: f64,
}

/// `run` offers a rate, or all that can be offered.
///
/// A rate fails only when it fails twice in a row: one hiccup of the machine is not the tunnel's
/// limit.
pub(crate) fn search(
    loss_max: f64,
    mut run: impl FnMut(Option<f64>) -> Result<Trial>,
) -> Result<Found> {
    let blast = run(None)?;
    let mut best = Best::new(loss_max, &blast);
    if best.accept(&blast) {
        return Ok(best.found(blast));
    }
    let (mut low, mut high) = (None, None);
    let mut grow = 1.0;
    let mut rate = blast.received_pps.max(1.0);
    for _ in 0..STEPS_MAX {
        let mut trial = run(Some(rate))?;
        let mut passed = best.accept(&trial);
        if !passed {
            trial = run(Some(rate))?;
            passed = best.accept(&trial);
        }
        if !passed {
            high = Some(rate);
        } else if trial.sent_pps < rate * OFFERED_MIN {
            break;
        } else {
            low = Some(rate);
        }
        rate = match (low, high) {
            (Some(low), Some(high)) if high / low < PRECISION => break,
            (Some(low), Some(high)) => f64::sqrt(low * high),
            (Some(low), None) => {
                grow *= GROW;
                low * grow
            }
            (None, Some(high)) => high * SHRINK,
            (None, None) => break,
        };
    }
    Ok(best.found(blast))
}

struct Best {
    loss_max: f64,
    pps: f64,
    reordered: u64,
    sender_busy: f64,
}

impl Best {
    fn new(loss_max: f64, blast: &Trial) -> Self {
        Self {
            loss_max,
            pps: 0.0,
            reordered: 0,
            sender_busy: blast.sender_busy,
        }
    }

    fn found(&self, blast: Trial) -> Found {
        let Self {
            pps,
            reordered,
            sender_busy,
            ..
        } = *self;
        Found {
            pps,
            blast,
            reordered,
            sender_busy,
        }
    }

    /// Whether a trial is within the bound.
    fn accept(&mut self, trial: &Trial) -> bool {
        self.reordered += trial.reordered;
        let passed = trial.loss <= self.loss_max;
        if passed && trial.received_pps > self.pps {
            self.pps = trial.received_pps;
            self.sender_busy = trial.sender_busy;
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tunnel that carries `limit` packets a second behind a sender of a million.
    fn tunnel(limit: f64) -> impl FnMut(Option<f64>) -> Result<Trial> {
        move |rate| {
            let sent_pps = rate.unwrap_or(f64::INFINITY).min(1_000_000.0);
            let received_pps = sent_pps.min(limit);
            Ok(Trial {
                sent_pps,
                received_pps,
                loss: 1.0 - received_pps / sent_pps,
                reordered: 0,
                sender_busy: 0.5,
            })
        }
    }

    #[test]
    fn the_limit_of_a_tunnel_is_found() {
        for limit in [500.0, 80_000.0, 640_000.0] {
            let found = search(0.001, tunnel(limit)).unwrap();
            assert!(
                found.pps > limit / PRECISION && found.pps <= limit,
                "{limit}: {found:?}"
            );
        }
    }

    #[test]
    fn a_tunnel_faster_than_the_sender_is_measured_by_the_sender() {
        let found = search(0.001, tunnel(2_000_000.0)).unwrap();
        assert_eq!(found.pps, 1_000_000.0);
    }

    #[test]
    fn one_hiccup_does_not_fail_a_rate() {
        let mut calls = 0;
        let mut steady = tunnel(80_000.0);
        let found = search(0.001, |rate| {
            calls += 1;
            let mut trial = steady(rate)?;
            if calls % 4 == 0 {
                trial.loss = 0.5;
            }
            Ok(trial)
        });
        assert!(found.unwrap().pps > 77_000.0);
    }

    #[test]
    fn a_tunnel_that_carries_nothing_has_no_rate() {
        let found = search(0.001, tunnel(0.0)).unwrap();
        assert_eq!(found.pps, 0.0);
    }

    #[test]
    fn a_blast_that_collapses_does_not_end_the_search_low() {
        let mut steady = tunnel(100_000.0);
        let found = search(0.01, |rate| match rate {
            None => Ok(Trial {
                sent_pps: 1e6,
                received_pps: 5_000.0,
                loss: 0.99,
                reordered: 0,
                sender_busy: 0.5,
            }),
            Some(rate) => steady(Some(rate)),
        });
        assert!(found.unwrap().pps > 97_000.0);
    }
}
