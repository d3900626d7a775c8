//! The header of a report: the measurements, the host, and other work on it.

use crate::metric::METRICS;
use crate::record::Record;
use crate::report::number::short;

/// Shares of a processor that pass for all of it.
const GENERATOR_BUSY: f64 = 0.95;

pub(crate) fn text(record: &Record) -> String {
    facts(record)
        .into_iter()
        .map(|(name, fact)| format!("{name:<12} {fact}"))
        .collect::<Vec<_>>()
        .join("\n")
        + "\n"
}

pub(crate) fn markdown(record: &Record) -> String {
    let facts = facts(record)
        .into_iter()
        .map(|(name, fact)| format!("- {name}: {fact}"));
    facts.collect::<Vec<_>>().join("\n") + "\n"
}

fn facts(record: &Record) -> Vec<(String, String)> {
    let host = &record.host;
    let cpu = format!("{} x {}, {} GiB", host.cpus, host.cpu, host.memory_gib);
    let disturbance = format!(
        "at most {} CPUs during a measurement",
        short(record.disturbance_max())
    );
    let mut facts = vec![
        ("date".to_owned(), host.date.clone()),
        ("kernel".to_owned(), host.kernel.clone()),
        ("cpu".to_owned(), cpu),
        ("load before".to_owned(), host.load_before.clone()),
        ("busy before".to_owned(), host.busy_processes.join(", ")),
        ("other work".to_owned(), disturbance),
        ("veth".to_owned(), host.offloads.join(", ")),
        (
            "tcp".to_owned(),
            format!("{}, net.core.rmem_max {}", host.tcp, host.rmem_max),
        ),
    ];
    facts.extend(record.settings.clone());
    for entrant in &record.contenders {
        let state = entrant.version.clone().or_else(|| entrant.absent.clone());
        let kind = if entrant.absent.is_some() {
            "absent"
        } else {
            "contender"
        };
        facts.push((
            kind.to_owned(),
            format!("{}: {}", entrant.name, state.unwrap_or_default()),
        ));
    }
    facts.extend(generator_limits(record).map(|limit| ("generator".to_owned(), limit)));
    let failures = record
        .runs
        .iter()
        .filter_map(|run| Some((run, run.error.as_ref()?)));
    facts.extend(failures.map(|(run, error)| {
        let what = format!(
            "{} {} round {}: {error}",
            run.contender, run.measurement, run.round
        );
        ("FAILED".to_owned(), what)
    }));
    facts.retain(|(_, fact)| !fact.is_empty());
    facts
}

/// The measurements whose sender had used up a processor of its own: the tunnel may be faster.
fn generator_limits(record: &Record) -> impl Iterator<Item = String> {
    let keys = METRICS
        .iter()
        .filter_map(|metric| metric.key.strip_suffix(".sender_busy"));
    keys.filter_map(|load| {
        let busy = |name: &&str| {
            let spread = record.spread(name, &format!("{load}.sender_busy"));
            spread.is_some_and(|spread| spread.median >= GENERATOR_BUSY)
        };
        let limited: Vec<&str> = record.measured().into_iter().filter(busy).collect();
        let names = limited.join(", ");
        (!limited.is_empty()).then(|| format!("was the limit of {load} for {names}"))
    })
}
