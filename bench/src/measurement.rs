//! Any measurement, by the name that `--only` takes.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::measure::{Pair, name_of};
use crate::scale::Scale;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measurement {
    /// Through one tunnel between two ends, which all of these share.
    Pair(Pair),
    /// With a topology of its own; says nothing about bare veth.
    Scale(Scale),
}

impl Measurement {
    pub(crate) fn all() -> Vec<Self> {
        let pairs = Pair::value_variants().iter().copied().map(Self::Pair);
        pairs
            .chain(Scale::value_variants().iter().copied().map(Self::Scale))
            .collect()
    }

    pub(crate) fn parse(name: &str) -> Result<Self> {
        let Some(found) = Self::all().into_iter().find(|one| one.name() == name) else {
            let known: Vec<_> = Self::all().into_iter().map(Self::name).collect();
            bail!("there are {}", known.join(", "));
        };
        Ok(found)
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Pair(pair) => name_of(pair),
            Self::Scale(scale) => name_of(scale),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measurement_is_found_by_its_name() {
        for one in Measurement::all() {
            assert_eq!(Measurement::parse(&one.name()).unwrap(), one);
        }
        assert!(Measurement::parse("tcp").is_err());
    }
}
