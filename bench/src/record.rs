//! The record of a run: the JSON file, and the summary that tables show.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::host::Host;

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    pub(crate) schema: u32,
    pub(crate) host: Host,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) contenders: Vec<Entrant>,
    pub(crate) runs: Vec<Run>,
}

/// A contender, present with its version or absent with the reason.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entrant {
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) absent: Option<String>,
}

/// A measurement of one contender in one round.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    pub(crate) contender: String,
    pub(crate) round: u32,
    pub(crate) measurement: String,
    pub(crate) readings: BTreeMap<String, f64>,
    /// Processors' worth of other work on the machine meanwhile.
    pub(crate) disturbance: f64,
    /// How often it was repeated because of other work; the least disturbed repetition counts.
    pub(crate) repeated: u32,
    pub(crate) error: Option<String>,
}

/// Median and spread over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Record {
    pub(crate) const SCHEMA: u32 = 1;

    /// The values of `key` over all rounds; `None` when it was never measured.
    pub(crate) fn spread(&self, contender: &str, key: &str) -> Option<Spread> {
        let runs = self.runs.iter().filter(|run| run.contender == contender);
        Spread::of(
            runs.filter_map(|run| run.readings.get(key).copied())
                .collect(),
        )
    }

    /// The names of those that have at least one reading, in order.
    pub(crate) fn measured(&self) -> Vec<&str> {
        let has_readings = |name: &str| {
            self.runs
                .iter()
                .any(|run| run.contender == name && !run.readings.is_empty())
        };
        let names = self.contenders.iter().map(|entrant| entrant.name.as_str());
        names.filter(|name| has_readings(name)).collect()
    }

    pub(crate) fn rounds(&self) -> u32 {
        self.runs.iter().map(|run| run.round).max().unwrap_or(0)
    }

    /// The largest disturbance of any measurement.
    pub(crate) fn disturbance_max(&self) -> f64 {
        self.runs
            .iter()
            .map(|run| run.disturbance)
            .fold(0.0, f64::max)
    }
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_is_between_the_middle_two() {
        let spread = |values: &[f64]| Spread::of(values.to_vec());
        assert_eq!(
            spread(&[3.0, 1.0, 2.0]),
            Some(Spread {
                median: 2.0,
                min: 1.0,
                max: 3.0
            })
        );
        assert_eq!(
            spread(&[4.0, 1.0]),
            Some(Spread {
                median: 2.5,
                min: 1.0,
                max: 4.0
            })
        );
        assert_eq!(spread(&[]), None);
    }
}
