//! Medians with their spread, a row a metric and a column a contender.

use super::grid::Grid;
use super::number::short;
use crate::contender::REFERENCE;
use crate::metric::{Better, METRICS, Metric};
use crate::record::{Record, Spread};

pub(crate) fn of(record: &Record) -> Grid {
    let contenders = record.measured();
    let mut header = vec!["median [min-max] ratio to wireguard-go".to_owned()];
    header.extend(contenders.iter().map(|name| (*name).to_owned()));
    let mut rows = Vec::new();
    for metric in METRICS {
        let spreads: Vec<_> = contenders
            .iter()
            .map(|name| record.spread(name, metric.key))
            .collect();
        if spreads.iter().all(Option::is_none) {
            continue;
        }
        let reference = record
            .spread(REFERENCE, metric.key)
            .map(|spread| spread.median);
        let mut row = vec![label(metric)];
        row.extend(contenders.iter().zip(spreads).map(|(name, spread)| {
            let reference = reference.filter(|_| *name != REFERENCE);
            spread.map_or_else(|| "-".to_owned(), |spread| cell(metric, spread, reference))
        }));
        rows.push(row);
    }
    Grid { header, rows }
}

fn label(metric: &Metric) -> String {
    if metric.unit.is_empty() {
        metric.label.to_owned()
    } else {
        format!("{}, {}", metric.label, metric.unit)
    }
}

fn cell(metric: &Metric, spread: Spread, reference: Option<f64>) -> String {
    let mut text = short(spread.median);
    if spread.min < spread.max {
        text += &format!(" [{}-{}]", short(spread.min), short(spread.max));
    }
    let judged = metric.better != Better::Neither;
    if let Some(reference) = reference.filter(|reference| judged && *reference > 0.0) {
        text += &format!(" {:.2}x", spread.median / reference);
    }
    text
}
