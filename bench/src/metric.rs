//! Everything that is measured: its key in the JSON, its name in a table, and which way is better.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
    /// Told, not judged.
    Neither,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    pub(crate) key: &'static str,
    pub(crate) label: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
}

const fn metric(
    key: &'static str,
    label: &'static str,
    unit: &'static str,
    better: Better,
) -> Metric {
    Metric {
        key,
        label,
        unit,
        better,
    }
}

use Better::{Higher, Lower, Neither};

/// In the order of the table.
pub(crate) const METRICS: &[Metric] = &[
    metric("tcp1.gbps", "TCP, one stream", "Gb/s", Higher),
    metric("tcp4.gbps", "TCP, four streams", "Gb/s", Higher),
    metric("tcp1r.gbps", "TCP, one stream, reverse", "Gb/s", Higher),
    metric(
        "tcpboth.gbps",
        "TCP, both ways at once, sum",
        "Gb/s",
        Higher,
    ),
    metric(
        "tcp1.machine_s_per_gb",
        "machine CPU, TCP one stream",
        "s/GB",
        Lower,
    ),
    metric(
        "tcp4.machine_s_per_gb",
        "machine CPU, TCP four streams",
        "s/GB",
        Lower,
    ),
    metric(
        "tcp1r.machine_s_per_gb",
        "machine CPU, TCP reverse",
        "s/GB",
        Lower,
    ),
    metric(
        "tcpboth.machine_s_per_gb",
        "machine CPU, TCP both ways",
        "s/GB",
        Lower,
    ),
    metric(
        "tcp1.daemons_s_per_gb",
        "both daemons' CPU, TCP one stream",
        "s/GB",
        Lower,
    ),
    metric(
        "tcp4.daemons_s_per_gb",
        "both daemons' CPU, TCP four streams",
        "s/GB",
        Lower,
    ),
    metric(
        "tcp1r.daemons_s_per_gb",
        "both daemons' CPU, TCP reverse",
        "s/GB",
        Lower,
    ),
    metric(
        "tcpboth.daemons_s_per_gb",
        "both daemons' CPU, TCP both ways",
        "s/GB",
        Lower,
    ),
    metric(
        "tcp1.retransmits",
        "retransmits, TCP one stream",
        "",
        Neither,
    ),
    metric(
        "tcp4.retransmits",
        "retransmits, TCP four streams",
        "",
        Neither,
    ),
    metric("tcp1r.retransmits", "retransmits, TCP reverse", "", Neither),
    metric(
        "tcpboth.retransmits",
        "retransmits, TCP both ways",
        "",
        Neither,
    ),
    metric(
        "udp1392.pps",
        "UDP 1392 B one by one, loss <= 1 %",
        "packets/s",
        Higher,
    ),
    metric(
        "udp1380g.pps",
        "UDP 1380 B with GSO, loss <= 1 %",
        "packets/s",
        Higher,
    ),
    metric("udp64.pps", "UDP 64 B, loss <= 0.1 %", "packets/s", Higher),
    metric(
        "udp1392.blast_pps",
        "UDP 1392 B one by one, received of a blast",
        "packets/s",
        Higher,
    ),
    metric(
        "udp1380g.blast_pps",
        "UDP 1380 B with GSO, received of a blast",
        "packets/s",
        Higher,
    ),
    metric(
        "udp64.blast_pps",
        "UDP 64 B, received of a blast",
        "packets/s",
        Higher,
    ),
    metric(
        "udp1392.blast_sent_pps",
        "UDP 1392 B, sent in the blast",
        "packets/s",
        Neither,
    ),
    metric(
        "udp1380g.blast_sent_pps",
        "UDP 1380 B with GSO, sent in the blast",
        "packets/s",
        Neither,
    ),
    metric(
        "udp64.blast_sent_pps",
        "UDP 64 B, sent in the blast",
        "packets/s",
        Neither,
    ),
    metric(
        "udp1392.sender_busy",
        "UDP 1392 B, the sender's share of a CPU at its rate",
        "",
        Neither,
    ),
    metric(
        "udp1380g.sender_busy",
        "UDP 1380 B with GSO, the sender's share of a CPU at its rate",
        "",
        Neither,
    ),
    metric(
        "udp64.sender_busy",
        "UDP 64 B, the sender's share of a CPU at its rate",
        "",
        Neither,
    ),
    metric(
        "udp1392.reordered",
        "UDP 1392 B, packets out of order",
        "",
        Neither,
    ),
    metric(
        "udp1380g.reordered",
        "UDP 1380 B with GSO, packets out of order",
        "",
        Neither,
    ),
    metric(
        "udp64.reordered",
        "UDP 64 B, packets out of order",
        "",
        Neither,
    ),
    metric("ping.p50_us", "ping, idle, p50", "us", Lower),
    metric("ping.p99_us", "ping, idle, p99", "us", Lower),
    metric("pingload.p50_us", "ping under TCP load, p50", "us", Lower),
    metric("pingload.p99_us", "ping under TCP load, p99", "us", Lower),
    metric("pingload.gbps", "TCP beside the ping", "Gb/s", Neither),
    metric("memory.a_mib", "peak memory, sending daemon", "MiB", Lower),
    metric(
        "memory.b_mib",
        "peak memory, receiving daemon",
        "MiB",
        Lower,
    ),
    metric("setup.first_ping_ms", "start to first ping", "ms", Lower),
    metric("peers1.gbps", "TCP, 1 peer configured", "Gb/s", Higher),
    metric("peers100.gbps", "TCP, 100 peers configured", "Gb/s", Higher),
    metric(
        "peers1000.gbps",
        "TCP, 1,000 peers configured",
        "Gb/s",
        Higher,
    ),
    metric("peers100.ratio", "TCP, 100 peers against 1", "", Higher),
    metric("peers1000.ratio", "TCP, 1,000 peers against 1", "", Higher),
    metric(
        "peers1000.first_ping_ms",
        "start to first ping, 1,000 peers",
        "ms",
        Lower,
    ),
    metric(
        "fanin1.pps",
        "1,392 B in from 1 peer, loss <= 1 %",
        "packets/s",
        Higher,
    ),
    metric(
        "fanin100.pps",
        "1,392 B in from 100 peers in turn",
        "packets/s",
        Higher,
    ),
    metric(
        "fanin1000.pps",
        "1,392 B in from 1,000 peers in turn",
        "packets/s",
        Higher,
    ),
    metric(
        "fanin1.sender_busy",
        "1 peer, the sender's share of a CPU at its rate",
        "",
        Neither,
    ),
    metric(
        "fanin100.sender_busy",
        "100 peers, the sender's share of a CPU at its rate",
        "",
        Neither,
    ),
    metric(
        "fanin1000.sender_busy",
        "1,000 peers, the sender's share of a CPU at its rate",
        "",
        Neither,
    ),
    metric(
        "idle.memory_mib",
        "peak memory with 200 idle peers",
        "MiB",
        Lower,
    ),
    metric(
        "idle.cpu_s_per_min",
        "CPU of 200 idle peers",
        "s/min",
        Lower,
    ),
    metric("handshakes.per_s", "handshakes answered", "1/s", Higher),
    metric("handshakes.cpu_us", "CPU of a handshake", "us", Lower),
    metric(
        "handshakes.cookies",
        "cookie replies on the way",
        "",
        Neither,
    ),
];

pub(crate) fn by_key(key: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_and_no_label_is_used_twice() {
        for (position, metric) in METRICS.iter().enumerate() {
            let rest = &METRICS[position + 1..];
            assert!(
                rest.iter().all(|other| other.key != metric.key),
                "{}",
                metric.key
            );
            assert!(
                rest.iter().all(|other| other.label != metric.label),
                "{}",
                metric.label
            );
        }
    }
}
