//! `ployzctl machine rtt`.

use std::collections::BTreeSet;
use std::time::Duration;

use ployz_api::{Code, Failure, MachineRtt, Name, Payload, Request, RttRow};

use super::unexpected;
use crate::arguments::RttArguments;
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};
use crate::table::Table;

pub(crate) fn run(connection: &Connection, arguments: &RttArguments) -> Outcome {
    let answer = connection.ask(&Request::MachineRtt)?;
    let Some(Payload::MachineRtt(mut measured)) = answer.payload else {
        return Err(unexpected());
    };
    select(&mut measured, &arguments.machines)?;
    if let Some(limit) = arguments.max_p99 {
        refuse_above(&measured.rows, limit)?;
    }
    let text = if arguments.matrix {
        matrix(&measured.rows)
    } else {
        listed(&measured.rows)
    };
    let warnings = measured
        .warnings
        .iter()
        .map(|it| format!("\nwarning: {it}"));
    let text = std::iter::once(text).chain(warnings).collect();
    let payload = Payload::MachineRtt(measured);
    Ok(Success::new(answer.message, text, Some(&payload)))
}

/// Leaves the pairs in which one of the wanted takes part.
fn select(measured: &mut MachineRtt, wanted: &[Name]) -> Result<(), Failure> {
    if wanted.is_empty() {
        return Ok(());
    }
    let is_wanted = |name: &Name| wanted.contains(name);
    let rows = &mut measured.rows;
    let warned = |name: &Name| {
        let from = format!("{name} to ");
        let to = format!(" to {name}:");
        measured
            .warnings
            .iter()
            .any(|it| it.starts_with(&from) || it.contains(&to))
    };
    let unknown = wanted.iter().find(|name| {
        let in_rows = rows
            .iter()
            .any(|row| row.machine == **name || row.peer == **name);
        !in_rows && !warned(name)
    });
    if let Some(name) = unknown {
        let message = format!("nothing has been measured from or to a machine '{name}'");
        return Err(Failure::new(Code::MachineNotFound, message).hint("ployzctl machine ls"));
    }
    rows.retain(|row| is_wanted(&row.machine) || is_wanted(&row.peer));
    Ok(())
}

fn refuse_above(rows: &[RttRow], limit: Duration) -> Result<(), Failure> {
    let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    let slow: Vec<String> = rows
        .iter()
        .filter(|row| row.p99_ns > limit_ns)
        .map(|row| format!("{} to {} {}", row.machine, row.peer, time(row.p99_ns)))
        .collect();
    if slow.is_empty() {
        return Ok(());
    }
    let message = format!(
        "99 % of round trips are not within {limit:?}: {}",
        slow.join(", ")
    );
    Err(Failure::new(Code::Timeout, message).hint("ployzctl machine rtt"))
}

fn listed(rows: &[RttRow]) -> String {
    if rows.is_empty() {
        return "nothing has been measured".to_owned();
    }
    let mut table = Table::new(&[
        "FROM",
        "TO",
        "MIN",
        "P50",
        "P90",
        "P99",
        "MAX",
        "JITTER",
        "LOSS ->/<-",
        "SAMPLES",
        "STAMPS",
        "AGE",
    ]);
    for row in rows {
        table.row(vec![
            row.machine.to_string(),
            row.peer.to_string(),
            time(row.min_ns),
            time(row.p50_ns),
            time(row.p90_ns),
            time(row.p99_ns),
            time(row.max_ns),
            time(row.jitter_ns),
            format!("{}/{}", row.loss_fwd, row.loss_rev),
            row.samples.to_string(),
            row.stamps.clone(),
            format!("{} s", row.age_secs),
        ]);
    }
    table.render()
}

/// Medians: from the machine of a line to that of a column.
fn matrix(rows: &[RttRow]) -> String {
    let names: BTreeSet<&Name> = rows
        .iter()
        .flat_map(|row| [&row.machine, &row.peer])
        .collect();
    let heading: Vec<&str> = std::iter::once("P50")
        .chain(names.iter().map(|it| it.as_str()))
        .collect();
    let mut table = Table::new(&heading);
    for machine in &names {
        let cell = |peer: &&Name| {
            let row = rows
                .iter()
                .find(|row| row.machine == **machine && row.peer == **peer);
            row.map_or_else(String::new, |row| time(row.p50_ns))
        };
        let cells = std::iter::once(machine.to_string()).chain(names.iter().map(cell));
        table.row(cells.collect());
    }
    table.render()
}

/// To a tenth of a microsecond: in a data centre that is what differs.
fn time(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{:.1}us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.3}ms", ns as f64 / 1e6),
        1_000_000_000.. => format!("{:.3}s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(machine: &str, peer: &str, p50_ns: u64) -> RttRow {
        RttRow {
            machine: Name::nearest(machine),
            peer: Name::nearest(peer),
            median_ms: p50_ns as f64 / 1e6,
            stddev_ms: 0.0,
            min_ns: p50_ns,
            p50_ns,
            p90_ns: p50_ns,
            p99_ns: p50_ns * 2,
            max_ns: p50_ns * 2,
            jitter_ns: 0,
            loss_pct: 0.0,
            loss_fwd: 0,
            loss_rev: 0,
            samples: 20,
            age_secs: 1,
            stamps: "kernel".to_owned(),
        }
    }

    #[test]
    fn a_matrix_has_a_dash_where_nothing_was_measured() {
        let text = matrix(&[row("a", "b", 81_500), row("b", "a", 1_234_567)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            ["P50  a        b", "a    —        81.5us", "b    1.235ms  —"]
        );
    }

    #[test]
    fn who_is_too_slow_is_named() {
        let rows = [row("a", "b", 1_000), row("b", "a", 500_001)];
        assert_eq!(refuse_above(&rows, Duration::from_millis(2)), Ok(()));
        let failure = refuse_above(&rows, Duration::from_millis(1)).unwrap_err();
        assert!(
            failure.message.ends_with("1ms: b to a 1.000ms"),
            "{failure}"
        );
    }

    #[test]
    fn only_pairs_of_the_wanted_are_left() {
        let measured = || MachineRtt {
            rows: vec![row("a", "b", 1), row("b", "c", 1)],
            warnings: vec!["c to d: unmeasured".to_owned()],
        };
        let mut some = measured();
        select(&mut some, &[Name::nearest("a")]).unwrap();
        assert_eq!(some.rows.len(), 1);
        assert!(select(&mut measured(), &[Name::nearest("d")]).is_ok());
        let failure = select(&mut measured(), &[Name::nearest("e")]).unwrap_err();
        assert_eq!(failure.code, Code::MachineNotFound);
    }
}
