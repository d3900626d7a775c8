//! The userspace protocol's view of a device, for `wg` and the control plane.

use std::time::{Duration, Instant, SystemTime};

use ployz_engine::{Drop, RttSnapshot, Update};

use crate::device::{Device, DeviceSnapshot};
use crate::uapi::{Interface, InterfaceDescription, InterfaceError};

impl Interface for Device {
    async fn apply(&self, update: Update) -> Result<(), InterfaceError> {
        self.apply_update(update).await
    }

    async fn describe(&self) -> Result<InterfaceDescription, InterfaceError> {
        let device = self.describe_engines().await?;
        let (now, unix_now) = clocks();
        Ok(InterfaceDescription {
            listen_port: self.port(),
            fwmark: self.fwmark(),
            device,
            now,
            unix_now,
        })
    }

    async fn measure(&self, count: u16) -> Result<(), InterfaceError> {
        self.measure_round_trips(count, None)
    }

    async fn status(&self) -> Result<Vec<(String, String)>, InterfaceError> {
        let DeviceSnapshot {
            traffic: snapshot,
            offloads,
            ..
        } = self.snapshot().await?;
        let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let mut status = vec![
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("backend".to_owned(), self.backend().name().to_owned()),
            ("shards".to_owned(), self.shard_count().to_string()),
            ("tun_tcp_offload".to_owned(), yes_no(offloads.tun_tcp)),
            ("tun_udp_offload".to_owned(), yes_no(offloads.tun_udp)),
            ("udp_gso".to_owned(), yes_no(offloads.udp_gso)),
            ("udp_gro".to_owned(), yes_no(offloads.udp_gro)),
            ("listen_port".to_owned(), self.port().to_string()),
            ("peers".to_owned(), snapshot.peers.len().to_string()),
        ];
        for (number, peer) in snapshot.peers.iter().enumerate() {
            if let Some(mtu) = peer.path_mtu {
                let path = format!("{} {mtu} {}", peer.public_key, peer.batches.name());
                status.push((format!("path_{number}"), path));
            }
            if let Some(rtt) = peer.rtt.as_ref().map(rtt_line) {
                status.push((
                    format!("rtt_{number}"),
                    format!("{} {rtt}", peer.public_key),
                ));
            }
        }
        for &reason in Drop::ALL {
            status.push((
                format!("drop_{}", reason.key()),
                snapshot.drops.get(reason).to_string(),
            ));
        }
        Ok(status)
    }
}

/// The round trips to a peer, as words of `name=value`: of the last samples the times in the network and through
/// the tunnel, and what became of the tests since the session began.
fn rtt_line(rtt: &RttSnapshot) -> String {
    let us = |time: Duration| format!("{:.1}", time.as_nanos() as f64 / 1e3);
    let network = rtt.window.network().unwrap_or_default();
    let tunnel = rtt.window.tunnel().unwrap_or_default();
    let counts = &rtt.counts;
    let words = [
        ("p50_us", us(network.p50)),
        ("p99_us", us(network.p99)),
        ("min_us", us(network.min)),
        ("max_us", us(network.max)),
        ("stddev_us", us(network.standard_deviation)),
        ("jitter_us", us(network.jitter)),
        ("tunnel_p50_us", us(tunnel.p50)),
        ("tunnel_p99_us", us(tunnel.p99)),
        ("samples", rtt.window.samples().len().to_string()),
        ("sent", counts.sent.to_string()),
        ("answered", counts.answered.to_string()),
        ("lost_forward", counts.lost_forward.to_string()),
        ("lost_reverse", counts.lost_reverse.to_string()),
        ("reordered_forward", counts.reordered_forward.to_string()),
        ("reordered_reverse", counts.reordered_reverse.to_string()),
        ("duplicates", counts.duplicates.to_string()),
        ("late", counts.late.to_string()),
        ("forged", counts.forged.to_string()),
        ("stalls", counts.stalls.to_string()),
        ("under_way", rtt.under_way.to_string()),
        (
            "age_secs",
            rtt.age.unwrap_or_default().as_secs().to_string(),
        ),
        ("stamps", rtt.window.by().name().to_owned()),
    ];
    words
        .map(|(name, value)| format!("{name}={value}"))
        .join(" ")
}

/// The engine's clock and the wall clock, at one moment.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge where handshakes get a date"
)]
fn clocks() -> (Instant, Duration) {
    let unix_now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    (Instant::now(), unix_now)
}
