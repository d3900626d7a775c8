//! The comparison: every contender once a round, interleaved, so that whatever changes on the
//! machine during the run meets all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::args::Compare;
use crate::contender::Contender;
use crate::host::Host;
use crate::idle_wait::{self, Patience};
use crate::measure::{self, Durations, Pair};
use crate::measurement::Measurement;
use crate::outcome::Outcome;
use crate::record::Record;
use crate::scale::Scale;
use crate::topology::Wire;
use crate::tunnel::{Plan, Tunnel};
use crate::{clock, console, contenders, priority, report};

/// Beside the sources, wherever the harness is called from.
const OUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/out");

pub(crate) fn compare(arguments: &Compare) -> Result<()> {
    let _lock = idle_wait::lock()?;
    if arguments.contenders.urgent {
        priority::raise()?;
    }
    let mut comparison = Comparison::prepare(arguments)?;
    for round in 1..=comparison.rounds {
        comparison.round(round)?;
    }
    report::show(&comparison.record, &arguments.output)?;
    console::result(&format!("JSON: {}", comparison.file.display()));
    Ok(())
}

/// The directory of the daemons' logs.
pub(crate) fn logs() -> Result<PathBuf> {
    let logs = Path::new(OUT).join("log");
    std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    Ok(logs)
}

struct Comparison {
    started: Instant,
    record: Record,
    /// Written after every contender: a run that is stopped has not been for nothing.
    file: PathBuf,
    contenders: Vec<Contender>,
    pairs: Vec<Pair>,
    scales: Vec<Scale>,
    durations: Durations,
    rounds: u32,
    wire: Wire,
    patience: Patience,
    repeat_max: u32,
}

impl Comparison {
    fn prepare(arguments: &Compare) -> Result<Self> {
        let started = clock::now();
        let wire = arguments.contenders.wire();
        let (contenders, entrants) = contenders::present(arguments.contenders.selected()?);
        let (mut pairs, mut scales) = (Vec::new(), Vec::new());
        for measurement in arguments.measurements() {
            match measurement {
                Measurement::Pair(pair) => pairs.push(pair),
                Measurement::Scale(scale) => scales.push(scale),
            }
        }
        let record = Record {
            schema: Record::SCHEMA,
            host: Host::describe(wire)?,
            settings: arguments.settings(),
            contenders: entrants,
            runs: vec![],
        };
        let file = arguments
            .json
            .clone()
            .unwrap_or_else(|| default_file(&record.host));
        Ok(Self {
            started,
            record,
            file,
            contenders,
            pairs,
            scales,
            durations: if arguments.quick {
                Durations::QUICK
            } else {
                Durations::FULL
            },
            rounds: arguments.rounds(),
            wire,
            patience: Patience::new(Duration::from_secs(arguments.wait_quiet)),
            repeat_max: arguments.repeat_disturbed,
        })
    }

    fn round(&mut self, round: u32) -> Result<()> {
        for contender in self.contenders.clone() {
            let plan = Plan {
                contender,
                wire: self.wire,
                idle_peers: 0,
                logs: logs()?,
            };
            if !self.pairs.is_empty() {
                self.pairs(round, &plan)?;
            }
            if plan.contender.takes_scale_runs() {
                self.scales(round, &plan)?;
            }
            self.save()?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        let took = format!("{:.1} min", self.started.elapsed().as_secs_f64() / 60.0);
        self.record.settings.insert("took".into(), took);
        report::json::write(&self.record, &self.file)
    }

    /// The measurements that share one tunnel, and what starting it and running it has told.
    fn pairs(&mut self, round: u32, plan: &Plan) -> Result<()> {
        let name = &plan.contender.name;
        self.patience.wait()?;
        let mut tunnel = match Tunnel::start(plan) {
            Ok(tunnel) => tunnel,
            Err(error) => {
                self.note(round, name, "setup", Outcome::of(Err(error)));
                return Ok(());
            }
        };
        let first_ping_ms = tunnel.first_ping().as_secs_f64() * 1e3;
        let setup = vec![("setup.first_ping_ms".to_owned(), first_ping_ms)];
        self.note(round, name, "setup", Outcome::of(Ok(setup)));
        for pair in self.pairs.clone() {
            let (durations, repeat_max) = (self.durations, self.repeat_max);
            let work = || pair.run(&tunnel, &durations);
            let outcome = Outcome::least_disturbed(&mut self.patience, repeat_max, work)?;
            self.note(round, name, &measure::name_of(pair), outcome);
            if let Err(error) = tunnel.check_alive() {
                self.note(round, name, "daemon", Outcome::of(Err(error)));
                return Ok(());
            }
        }
        self.note(round, name, "memory", Outcome::of(measure::memory(&tunnel)));
        Ok(())
    }

    fn scales(&mut self, round: u32, plan: &Plan) -> Result<()> {
        for scale in self.scales.clone() {
            let durations = self.durations;
            let work = || scale.run(plan, &durations);
            let outcome = Outcome::least_disturbed(&mut self.patience, self.repeat_max, work)?;
            self.note(
                round,
                &plan.contender.name,
                &measure::name_of(scale),
                outcome,
            );
        }
        Ok(())
    }

    fn note(&mut self, round: u32, contender: &str, measurement: &str, outcome: Outcome) {
        console::progress(&outcome.line(round, contender, measurement));
        self.record
            .runs
            .push(outcome.into_run(round, contender, measurement));
    }
}

impl Compare {
    fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    fn measurements(&self) -> Vec<Measurement> {
        let mut all = Measurement::all();
        all.retain(|one| self.only.is_empty() || self.only.contains(one));
        all.retain(|one| !(self.no_scale && matches!(one, Measurement::Scale(_))));
        all
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let names: Vec<_> = self
            .measurements()
            .into_iter()
            .map(Measurement::name)
            .collect();
        BTreeMap::from([
            ("measured".into(), names.join(" ")),
            ("rounds".into(), self.rounds().to_string()),
            (
                "length".into(),
                if self.quick { "quick" } else { "full" }.into(),
            ),
            (
                "urgent".into(),
                if self.contenders.urgent { "yes" } else { "no" }.into(),
            ),
            ("wire".into(), self.contenders.wire().describe().into()),
        ])
    }
}

fn default_file(host: &Host) -> PathBuf {
    let stamp: String = host.date.chars().filter(char::is_ascii_digit).collect();
    Path::new(OUT).join(format!("compare-{stamp}-{}.json", std::process::id()))
}
