//! The targets of `ployzd`, as ratios within one run.

use super::grid::Grid;
use super::number::short;
use crate::contender::{BARE, KERNEL, PLOYZD_EPOLL, PLOYZD_URING, REFERENCE};
use crate::metric::{Better, METRICS, by_key};
use crate::record::Record;

struct Target {
    key: &'static str,
    against: Against,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Against {
    /// The ratio to another contender.
    Contender(&'static str),
    /// The value itself.
    Nothing,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Against::{Contender, Nothing};
use Bound::{AtLeast, AtMost};

const fn target(key: &'static str, against: Against, bound: Bound) -> Target {
    Target {
        key,
        against,
        bound,
    }
}

const TARGETS: &[Target] = &[
    target("tcp1.gbps", Contender(REFERENCE), AtLeast(1.8)),
    target("tcp4.gbps", Contender(REFERENCE), AtLeast(1.8)),
    target("tcp1r.gbps", Contender(REFERENCE), AtLeast(1.8)),
    target("tcp1.machine_s_per_gb", Contender(REFERENCE), AtMost(0.55)),
    target("tcp4.machine_s_per_gb", Contender(REFERENCE), AtMost(0.55)),
    target("tcp1r.machine_s_per_gb", Contender(REFERENCE), AtMost(0.55)),
    target("udp64.pps", Contender(REFERENCE), AtLeast(4.0)),
    target("udp1392.pps", Contender(REFERENCE), AtLeast(3.0)),
    target("ping.p50_us", Contender(REFERENCE), AtMost(0.5)),
    target("pingload.p50_us", Contender(REFERENCE), AtMost(0.3)),
    target("memory.a_mib", Nothing, AtMost(24.0)),
    target("memory.b_mib", Nothing, AtMost(24.0)),
    target("peers1000.ratio", Nothing, AtLeast(0.95)),
    // Within the spread of single runs, 5 %.
    target("tcp1.gbps", Contender(PLOYZD_EPOLL), AtLeast(0.95)),
    target(
        "tcp1.machine_s_per_gb",
        Contender(PLOYZD_EPOLL),
        AtMost(1.05),
    ),
    target("udp64.pps", Contender(PLOYZD_EPOLL), AtLeast(1.0)),
    target("udp1392.pps", Contender(PLOYZD_EPOLL), AtLeast(1.0)),
];

/// Of the rows that are throughput, packet rate, processor time and idle ping.
const LEADERSHIP: [&str; 4] = ["gbps", "pps", "machine_s_per_gb", "ping.p50_us"];

pub(crate) fn of(record: &Record) -> Grid {
    let header = ["target of ployzd", "bound", "measured", ""]
        .map(str::to_owned)
        .to_vec();
    let mut rows: Vec<_> = TARGETS
        .iter()
        .filter_map(|target| row(record, target))
        .collect();
    rows.extend(rivals_ahead(record));
    Grid { header, rows }
}

fn row(record: &Record, target: &Target) -> Option<Vec<String>> {
    let ours = record.spread(PLOYZD_URING, target.key)?.median;
    let (value, against) = match target.against {
        Nothing => (ours, String::new()),
        Contender(name) => (
            ours / record.spread(name, target.key)?.median,
            format!(" / {name}"),
        ),
    };
    let (met, bound) = match target.bound {
        AtLeast(bound) => (value >= bound, format!(">= {bound}")),
        AtMost(bound) => (value <= bound, format!("<= {bound}")),
    };
    let label = by_key(target.key)?.label;
    let verdict = if met { "met" } else { "MISSED" };
    Some(vec![
        format!("{label}{against}"),
        bound,
        short(value),
        verdict.to_owned(),
    ])
}

/// The cells in which another userspace contender is ahead of ployzd.
fn rivals_ahead(record: &Record) -> Vec<Vec<String>> {
    let ours = [PLOYZD_URING, PLOYZD_EPOLL, BARE, KERNEL];
    let mut rows = Vec::new();
    for metric in METRICS {
        let judged = LEADERSHIP.iter().any(|suffix| metric.key.ends_with(suffix));
        let Some(own) = record.spread(PLOYZD_URING, metric.key).filter(|_| judged) else {
            continue;
        };
        for rival in record
            .measured()
            .into_iter()
            .filter(|name| !ours.contains(name))
        {
            let Some(theirs) = record.spread(rival, metric.key) else {
                continue;
            };
            let ratio = own.median / theirs.median;
            let ahead = match metric.better {
                Better::Higher => ratio < 1.0,
                Better::Lower => ratio > 1.0,
                Better::Neither => false,
            };
            if ahead {
                let what = format!("no rival ahead: {}, {rival}", metric.label);
                rows.push(vec![what, "ahead".into(), short(ratio), "MISSED".into()]);
            }
        }
    }
    rows
}
