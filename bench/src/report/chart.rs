//! Which rows become which chart.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::svg::{Bar, Chart, Group};
use crate::metric::{Better, by_key};
use crate::record::Record;

struct Sheet {
    file: &'static str,
    title: &'static str,
    keys: &'static [&'static str],
}

const SHEETS: &[Sheet] = &[
    Sheet {
        file: "tcp.svg",
        title: "TCP through the tunnel",
        keys: &["tcp1.gbps", "tcp4.gbps", "tcp1r.gbps", "tcpboth.gbps"],
    },
    Sheet {
        file: "cpu.svg",
        title: "Processor time of the whole machine, per GB",
        keys: &[
            "tcp1.machine_s_per_gb",
            "tcp4.machine_s_per_gb",
            "tcp1r.machine_s_per_gb",
        ],
    },
    Sheet {
        file: "packets.svg",
        title: "UDP packets a second within the bound on loss",
        keys: &["udp64.pps", "udp1392.pps", "udp1380g.pps"],
    },
    Sheet {
        file: "ping.svg",
        title: "Round trip through the idle tunnel",
        keys: &["ping.p50_us", "ping.p99_us"],
    },
    Sheet {
        file: "pingload.svg",
        title: "Round trip beside one TCP stream",
        keys: &["pingload.p50_us", "pingload.p99_us"],
    },
    Sheet {
        file: "memory.svg",
        title: "Peak memory of a daemon",
        keys: &["memory.a_mib", "memory.b_mib"],
    },
    Sheet {
        file: "peers.svg",
        title: "TCP on one of many peers",
        keys: &["peers1.gbps", "peers100.gbps", "peers1000.gbps"],
    },
];

/// Draws every sheet that has something to show, and returns the files.
pub(crate) fn draw(record: &Record, directory: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let mut files = Vec::new();
    for sheet in SHEETS {
        let groups: Vec<Group> = sheet
            .keys
            .iter()
            .filter_map(|key| group(record, key))
            .collect();
        if groups.is_empty() {
            continue;
        }
        let footnote = footnote(record);
        let chart = Chart {
            title: sheet.title,
            footnote: &footnote,
            groups,
        };
        let file = directory.join(sheet.file);
        std::fs::write(&file, chart.render()).with_context(|| file.display().to_string())?;
        files.push(file);
    }
    Ok(files)
}

fn group(record: &Record, key: &str) -> Option<Group> {
    let metric = by_key(key)?;
    let bars: Vec<Bar> = record
        .measured()
        .into_iter()
        .filter_map(|name| {
            Some(Bar {
                name: name.to_owned(),
                spread: record.spread(name, key)?,
            })
        })
        .collect();
    let direction = match metric.better {
        Better::Higher => ", more is better",
        Better::Lower => ", less is better",
        Better::Neither => "",
    };
    let title = format!("{}, {}{direction}", metric.label, metric.unit);
    (!bars.is_empty()).then_some(Group { title, bars })
}

fn footnote(record: &Record) -> String {
    let host = &record.host;
    format!(
        "{}, Linux {}, {} x {}; median of {} rounds, lines from min to max, \u{2192} cut off",
        host.date,
        host.kernel,
        host.cpus,
        host.cpu,
        record.rounds()
    )
}
