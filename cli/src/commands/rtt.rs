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
    let measured = measure(connection, arguments)?;
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
    Ok(Success::new(String::new(), text, Some(&payload)))
}

/// Has all machines concerned measure, and puts together what they say.
fn measure(connection: &Connection, arguments: &RttArguments) -> Result<MachineRtt, Failure> {
    let request = Request::MachineRtt {
        machines: arguments.machines.clone(),
        count: arguments.count,
    };
    let mut all = MachineRtt::default();
    let mut failure = None;
    let mut answered = 0;
    connection.gather(&request, |answer| match answer.map(|it| it.payload) {
        Ok(Some(Payload::MachineRtt(part))) => {
            answered += 1;
            if !arguments.watch {
                let machines = part.machines;
                connection.progress(&format!("{answered} of {machines} machines have measured"));
            }
            all.machines = part.machines;
            all.rows.extend(part.rows);
            all.warnings.extend(part.warnings);
        }
        Ok(_) => failure = Some(unexpected()),
        Err(refused) => failure = Some(refused),
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    all.rows
        .sort_by(|a, b| (&a.machine, &a.peer).cmp(&(&b.machine, &b.peer)));
    all.warnings.sort();
    Ok(all)
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
    let message = format!("p99 exceeds {limit:?}: {}", slow.join(", "));
    Err(Failure::new(Code::Timeout, message).hint("ployzctl machine rtt"))
}

fn listed(rows: &[RttRow]) -> String {
    if rows.is_empty() {
        return "no pair has been measured".to_owned();
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
        "TUNNEL",
        "LOSS ->/<-",
        "SAMPLES",
        "STAMPS",
        "AGE",
        "NOTES",
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
            time(row.tunnel_p50_ns),
            format!("{}/{}", row.loss_fwd, row.loss_rev),
            row.samples.to_string(),
            row.stamps.clone(),
            format!("{} s", row.age_secs),
            notes(row),
        ]);
    }
    table.render()
}

/// Describes what is shown only where it happens.
fn notes(row: &RttRow) -> String {
    let counts = [
        (row.reordered_fwd, "reordered ->"),
        (row.reordered_rev, "reordered <-"),
        (row.duplicates, "twice"),
        (row.late, "late"),
        (row.forged, "forged"),
        (row.stalls, "stalled"),
    ];
    let happened = counts.iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = happened
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    words.join(", ")
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
            tunnel_p50_ns: p50_ns * 3,
            tunnel_p99_ns: p50_ns * 4,
            reordered_fwd: 0,
            reordered_rev: 0,
            duplicates: 0,
            late: 0,
            forged: 0,
            stalls: 0,
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
    fn what_is_rare_is_noted() {
        assert_eq!(notes(&row("a", "b", 1)), "");
        let rare = RttRow {
            duplicates: 2,
            stalls: 1,
            ..row("a", "b", 1)
        };
        assert_eq!(notes(&rare), "2 twice, 1 stalled");
    }
}
