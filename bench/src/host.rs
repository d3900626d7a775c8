//! The machine that was measured, for the header of every report.

use std::process::Command;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::iperf::CONGESTION_CONTROL;
use crate::netns::Namespace;
use crate::process;
use crate::topology::{DEVICE, End, Topology, Wire};

const OFFLOADS: [&str; 6] = [
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "tx-udp-segmentation",
    "rx-udp-gro-forwarding",
    "tx-checksumming",
];

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Host {
    pub(crate) date: String,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_gib: f64,
    pub(crate) load_before: String,
    /// The busiest programs that were running when the run began.
    pub(crate) busy_processes: Vec<String>,
    pub(crate) offloads: Vec<String>,
    pub(crate) tcp: String,
    pub(crate) rmem_max: String,
}

impl Host {
    pub(crate) fn describe(wire: Wire) -> Result<Self> {
        let topology = Topology::create(wire)?;
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let cpu = cpu
            .and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, name)| name);
        let memory_kib: f64 = read("/proc/meminfo")
            .lines()
            .find_map(|line| {
                line.strip_prefix("MemTotal:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0.0);
        Ok(Self {
            date: line_of(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
            kernel: line_of(Command::new("uname").arg("-r")),
            cpu: cpu.to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            memory_gib: (memory_kib / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            load_before: read("/proc/loadavg"),
            busy_processes: busy_processes(),
            offloads: offloads(topology.namespace(End::A))?,
            tcp: CONGESTION_CONTROL.into(),
            rmem_max: read("/proc/sys/net/core/rmem_max"),
        })
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn line_of(command: &mut Command) -> String {
    process::run(command, process::SHORT)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// By `top`'s second look, a fifth of a second after the first: what is busy now.
fn busy_processes() -> Vec<String> {
    let mut top = Command::new("top");
    top.args(["-b", "-n", "2", "-d", "0.2", "-w", "160"]);
    let text = process::run(&mut top, process::SHORT).unwrap_or_default();
    let second = text.rsplit("PID USER").next().unwrap_or_default();
    let busy = second.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let percent: f64 = fields.get(8)?.parse().ok()?;
        let name = fields.get(11).filter(|name| **name != "top")?;
        (percent >= 5.0).then(|| format!("{name} {percent:.0} %"))
    });
    busy.take(8).collect()
}

fn offloads(namespace: &Namespace) -> Result<Vec<String>> {
    let mut ethtool = Command::new("ethtool");
    let text = namespace.run(ethtool.args(["-k", DEVICE]), process::SHORT)?;
    let lines = text.lines().map(str::trim);
    let shown = lines.filter(|line| OFFLOADS.iter().any(|flag| line.starts_with(flag)));
    Ok(shown.map(str::to_owned).collect())
}
