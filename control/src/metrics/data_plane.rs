//! Metrics of the data plane.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use ployz_dataplane::uapi::InterfaceError;
use ployz_dataplane::{Backend, Device, DeviceSnapshot, Offloads, RingDepth};
use ployz_engine::{BUCKETS_US, Batches, PeerSnapshot, RttSnapshot};

use crate::metrics::exposition::{family, gauge};

/// The data plane's part of the page.
///
/// # Errors
/// If the data plane does not answer.
pub(crate) async fn page(device: &Device) -> Result<String, InterfaceError> {
    let state = State {
        backend: device.backend(),
        device: device.snapshot().await?,
    };
    Ok(state.render(&Clocks::read()))
}

/// The state that the page shows.
struct State {
    backend: Backend,
    device: DeviceSnapshot,
}

/// The engine's clock and the wall clock, at one moment.
struct Clocks {
    now: Instant,
    unix_now: Duration,
}

impl Clocks {
    #[expect(
        clippy::disallowed_methods,
        reason = "the edge where handshakes get a date"
    )]
    fn read() -> Self {
        let unix_now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            now: Instant::now(),
            unix_now: unix_now.unwrap_or_default(),
        }
    }
}

impl State {
    fn render(&self, clocks: &Clocks) -> String {
        let mut text = String::new();
        let labels = format!(
            "{{version=\"{}\",backend=\"{}\"}}",
            ployz_install::own_version(),
            self.backend.name()
        );
        family(
            &mut text,
            "ployz_info",
            "gauge",
            "What runs.",
            [(labels, 1)],
        );
        self.render_offloads(&mut text);
        self.render_rings(&mut text);
        self.render_peers(&mut text, clocks);
        let drops = self.device.traffic.drops.iter();
        let drops =
            drops.map(|(reason, count)| (format!("{{reason=\"{}\"}}", reason.key()), count));
        let help = "Packets and datagrams that were not passed on.";
        family(&mut text, "ployz_dropped_total", "counter", help, drops);
        text
    }

    fn render_offloads(&self, text: &mut String) {
        let Offloads {
            tun_tcp,
            tun_udp,
            udp_gso,
            udp_gro,
        } = self.device.offloads;
        for (name, help, used) in [
            ("ployz_tun_tcp_offload", "1 with TSO on the TUN.", tun_tcp),
            ("ployz_tun_udp_offload", "1 with USO on the TUN.", tun_udp),
            (
                "ployz_udp_gso",
                "1 while datagrams leave in batches (UDP GSO).",
                udp_gso,
            ),
            (
                "ployz_udp_gro",
                "1 if datagrams may come in batches (UDP GRO).",
                udp_gro,
            ),
        ] {
            gauge(text, name, help, u64::from(used));
        }
    }

    fn render_rings(&self, text: &mut String) {
        let mut each = |name, help, value: fn(&RingDepth) -> usize| {
            let rings = self.device.rings.iter().enumerate();
            let samples =
                rings.map(|(shard, ring)| (format!("{{shard=\"{shard}\"}}"), value(ring) as u64));
            family(text, name, "gauge", help, samples);
        };
        let help = "Sends and writes whose memory the kernel holds.";
        each("ployz_ring_in_flight", help, |ring| ring.in_flight);
        let help = "Completions that the last turn of the loop found.";
        each("ployz_ring_completions", help, |ring| ring.completed);
        let help = "The most completions that a turn has found; there is room for 1024.";
        each("ployz_ring_completions_max", help, |ring| {
            ring.completed_max
        });
    }

    fn render_peers(&self, text: &mut String, clocks: &Clocks) {
        let mut each = |name, kind, help, value: &dyn Fn(&PeerSnapshot) -> Option<u64>| {
            let samples = self.device.traffic.peers.iter().filter_map(|peer| {
                // Base64 holds nothing that a label would have to escape.
                let labels = format!("{{public_key=\"{}\"}}", peer.public_key);
                value(peer).map(|value| (labels, value))
            });
            family(text, name, kind, help, samples);
        };
        let help = "Bytes of authenticated messages from the peer, headers included.";
        each("ployz_peer_rx_bytes_total", "counter", help, &|peer| {
            Some(peer.rx_bytes)
        });
        let help = "Bytes of messages to the peer, headers included.";
        each("ployz_peer_tx_bytes_total", "counter", help, &|peer| {
            Some(peer.tx_bytes)
        });
        let help = "When the last handshake was completed, since 1970; absent before the first.";
        each(
            "ployz_peer_last_handshake_timestamp_seconds",
            "gauge",
            help,
            &|peer| {
                let age = clocks.now.saturating_duration_since(peer.last_handshake?);
                Some(clocks.unix_now.saturating_sub(age).as_secs())
            },
        );
        let help = "Packets that wait for a handshake with the peer.";
        each("ployz_peer_staged_packets", "gauge", help, &|peer| {
            Some(peer.staged_packets as u64)
        });
        let help = "Longest IP packet that reaches the peer, outside the tunnel; absent before it was measured.";
        each("ployz_peer_path_mtu_bytes", "gauge", help, &|peer| {
            peer.path_mtu.map(|mtu| mtu as u64)
        });
        let help = "1 if batches reach the peer as they were sent, 0 if they do not and datagrams are sent one by one; absent before it was tested.";
        each(
            "ployz_peer_udp_gso",
            "gauge",
            help,
            &|peer| match peer.batches {
                Batches::Untested => None,
                Batches::Work => Some(1),
                Batches::Broken => Some(0),
            },
        );
        self.render_rtt(text);
    }

    fn render_rtt(&self, text: &mut String) {
        let measured = || {
            self.device.traffic.peers.iter().filter_map(|peer| {
                let rtt = peer.rtt.as_ref()?;
                Some((format!("public_key=\"{}\"", peer.public_key), rtt))
            })
        };
        let help = "Tests of the round trip that were sent to the peer.";
        let sent = measured().map(|(peer, rtt)| (format!("{{{peer}}}"), rtt.counts.sent));
        family(text, "ployz_peer_rtt_tests_total", "counter", help, sent);
        // A test whose reply is only late is subtracted again, so this is no counter.
        let help = "Tests, or their replies, that were lost on the way to the peer or back.";
        let lost = measured().flat_map(|(peer, rtt)| {
            [
                ("forward", rtt.counts.lost_forward),
                ("reverse", rtt.counts.lost_reverse),
            ]
            .map(|(way, lost)| (format!("{{{peer},direction=\"{way}\"}}"), lost))
        });
        family(text, "ployz_peer_rtt_lost", "gauge", help, lost);
        let help = "What else became of tests and replies: overtaken on the way, answered twice, late or by nobody we asked, or held up by a process that stood still.";
        let events = measured().flat_map(|(peer, rtt)| {
            let counts = &rtt.counts;
            [
                ("reordered_forward", counts.reordered_forward),
                ("reordered_reverse", counts.reordered_reverse),
                ("duplicate", counts.duplicates),
                ("late", counts.late),
                ("forged", counts.forged),
                ("stall", counts.stalls),
            ]
            .map(|(event, count)| (format!("{{{peer},event=\"{event}\"}}"), count))
        });
        family(text, "ployz_peer_rtt_events_total", "counter", help, events);
        let help = "Round trips to the peer, between the network drivers of both machines.";
        histogram(text, "ployz_peer_rtt_seconds", help, measured());
    }
}

/// A family of histograms, one for each peer that was measured.
fn histogram<'a>(
    text: &mut String,
    name: &str,
    help: &str,
    peers: impl Iterator<Item = (String, &'a RttSnapshot)>,
) {
    family(text, name, "histogram", help, []);
    let bounds = BUCKETS_US.map(|us| format!("{}", us as f64 / 1e6));
    let bounds: Vec<&str> = bounds.iter().map(String::as_str).chain(["+Inf"]).collect();
    for (peer, rtt) in peers {
        let cumulative = rtt.histogram.cumulative();
        for (bound, count) in bounds.iter().zip(cumulative) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}_bucket{{{peer},le=\"{bound}\"}} {count}");
        }
        let (sum, count) = (
            rtt.histogram.sum().as_secs_f64(),
            cumulative[BUCKETS_US.len()],
        );
        let _ = writeln!(
            text,
            "{name}_sum{{{peer}}} {sum}\n{name}_count{{{peer}}} {count}"
        );
    }
}

#[cfg(test)]
mod tests {
    use ployz_engine::{Counts, Drop, Drops, PublicKey, Snapshot};

    use super::*;

    fn state(clocks: &Clocks) -> State {
        let mut drops = Drops::default();
        drops.count_many(Drop::Spoof, 3);
        let peer = |byte, last_handshake| PeerSnapshot {
            rx_bytes: 92,
            tx_bytes: u64::MAX,
            last_handshake,
            staged_packets: 2,
            path_mtu: (byte == 0).then_some(1_400),
            batches: if byte == 0 {
                Batches::Broken
            } else {
                Batches::Untested
            },
            rtt: (byte == 0).then(|| RttSnapshot {
                counts: Counts {
                    sent: 9,
                    lost_forward: 2,
                    stalls: 4,
                    ..Counts::default()
                },
                ..RttSnapshot::default()
            }),
            ..PeerSnapshot::unheard(PublicKey::from_bytes([byte; 32]))
        };
        let peers = vec![peer(0, Some(clocks.now)), peer(0xff, None)];
        State {
            backend: Backend::IoUring,
            device: DeviceSnapshot {
                traffic: Snapshot { peers, drops },
                offloads: Offloads {
                    tun_tcp: true,
                    tun_udp: false,
                    udp_gso: true,
                    udp_gro: true,
                },
                rings: vec![RingDepth {
                    in_flight: 1,
                    completed: 2,
                    completed_max: 3,
                }],
            },
        }
    }

    #[test]
    fn every_family_has_its_type_and_its_samples() {
        let clocks = Clocks {
            unix_now: Duration::from_millis(1_700_000_000_999),
            ..Clocks::read()
        };
        let text = state(&clocks).render(&clocks);
        let first = format!("{{public_key=\"{}=\"", "A".repeat(43));
        let zeros = format!("{first}}}");
        for line in [
            format!(
                "ployz_info{{version=\"{}\",backend=\"io_uring\"}} 1",
                ployz_install::own_version()
            ),
            "# TYPE ployz_dropped_total counter".to_owned(),
            "ployz_udp_gso 1".to_owned(),
            "ployz_tun_udp_offload 0".to_owned(),
            "ployz_ring_in_flight{shard=\"0\"} 1".to_owned(),
            "ployz_ring_completions_max{shard=\"0\"} 3".to_owned(),
            format!("ployz_peer_rx_bytes_total{zeros} 92"),
            format!("ployz_peer_tx_bytes_total{zeros} 18446744073709551615"),
            format!("ployz_peer_last_handshake_timestamp_seconds{zeros} 1700000000"),
            format!("ployz_peer_staged_packets{zeros} 2"),
            format!("ployz_peer_path_mtu_bytes{zeros} 1400"),
            format!("ployz_peer_udp_gso{zeros} 0"),
            format!("ployz_peer_rtt_tests_total{zeros} 9"),
            format!("ployz_peer_rtt_lost{first},direction=\"forward\"}} 2"),
            format!("ployz_peer_rtt_lost{first},direction=\"reverse\"}} 0"),
            format!("ployz_peer_rtt_events_total{first},event=\"stall\"}} 4"),
            "# TYPE ployz_peer_rtt_seconds histogram".to_owned(),
            format!("ployz_peer_rtt_seconds_bucket{first},le=\"0.00002\"}} 0"),
            format!("ployz_peer_rtt_seconds_bucket{first},le=\"+Inf\"}} 0"),
            format!("ployz_peer_rtt_seconds_count{zeros} 0"),
            "ployz_dropped_total{reason=\"spoof\"} 3".to_owned(),
            "ployz_dropped_total{reason=\"replay\"} 0".to_owned(),
        ] {
            assert!(text.lines().any(|it| it == line), "no {line} in\n{text}");
        }
        let dates = text.matches("last_handshake_timestamp_seconds{").count();
        assert_eq!(dates, 1, "a peer without a handshake has no date");
        let mtus = text.matches("path_mtu_bytes{").count();
        assert_eq!(mtus, 1, "a path that was not measured has no MTU");
        crate::testkit::assert_page(&text);
    }
}
