//! How one measurement went, beside whatever else the machine was doing.

use anyhow::{Context as _, Result};

use crate::idle_wait::{DISTURBANCE_MAX, Patience};
use crate::measure::Readings;
use crate::record::Run;
use crate::report::number::short;
use crate::usage::Usage;

#[derive(Debug)]
pub(crate) struct Outcome {
    readings: Readings,
    disturbance: f64,
    repeated: u32,
    error: Option<String>,
}

impl Outcome {
    pub(crate) fn of(result: Result<Readings>) -> Self {
        let (readings, error) = match result {
            Ok(readings) => (readings, None),
            Err(error) => (vec![], Some(format!("{error:#}"))),
        };
        Self {
            readings,
            disturbance: 0.0,
            repeated: 0,
            error,
        }
    }

    /// Runs `work`, again when other work on the machine got in its way, and keeps the repetition
    /// with the least of that. What was measured plays no part in the choice.
    pub(crate) fn least_disturbed(
        patience: &mut Patience,
        repeat_max: u32,
        mut work: impl FnMut() -> Result<Readings>,
    ) -> Result<Self> {
        let mut best: Option<Self> = None;
        for repeated in 0..=repeat_max {
            patience.wait()?;
            let before = Usage::read(&[])?;
            let mut outcome = Self::of(work());
            outcome.disturbance = Usage::read(&[])?.since(&before).disturbance();
            outcome.repeated = repeated;
            let disturbance = outcome.disturbance;
            if best
                .as_ref()
                .is_none_or(|best| disturbance < best.disturbance)
            {
                best = Some(outcome);
            }
            if disturbance <= DISTURBANCE_MAX * 2.0 {
                break;
            }
        }
        best.context("at least one repetition")
    }

    /// A line of progress.
    pub(crate) fn line(&self, round: u32, contender: &str, measurement: &str) -> String {
        let mut line = format!("round {round}  {contender:<13} {measurement:<10}");
        for (key, value) in &self.readings {
            let key = key
                .strip_prefix(measurement)
                .unwrap_or(key)
                .trim_start_matches('.');
            line += &format!(" {key}={}", short(*value));
        }
        if let Some(error) = &self.error {
            line += &format!(" FAILED: {error}");
        }
        if self.disturbance > DISTURBANCE_MAX {
            line += &format!("  (other work: {:.2} CPUs)", self.disturbance);
        }
        line
    }

    pub(crate) fn into_run(self, round: u32, contender: &str, measurement: &str) -> Run {
        Run {
            contender: contender.to_owned(),
            round,
            measurement: measurement.to_owned(),
            readings: self.readings.into_iter().collect(),
            disturbance: self.disturbance,
            repeated: self.repeated,
            error: self.error,
        }
    }
}
