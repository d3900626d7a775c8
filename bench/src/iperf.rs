//! TCP through iperf3.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process;
use crate::topology::End;
use crate::tunnel::Tunnel;

/// For connecting, the exchange of results and a machine that is busy with the tunnel.
const GRACE: Duration = Duration::from_secs(15);

pub(crate) const CONGESTION_CONTROL: &str = "cubic";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// From A to B.
    Forward {
        streams: u32,
    },
    /// From B to A.
    Reverse,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Throughput {
    /// Payload that arrived, in both directions.
    pub(crate) bytes: f64,
    pub(crate) gbps: f64,
    pub(crate) retransmits: f64,
}

pub(crate) struct Iperf {
    server: Child,
    client: Child,
    duration: Duration,
}

impl Iperf {
    /// Starts a transfer that ends by itself after `duration`.
    pub(crate) fn start(tunnel: &Tunnel, flow: Flow, duration: Duration) -> Result<Self> {
        let address = tunnel.address(End::B).to_string();
        let mut server = Command::new("iperf3");
        server.args(["-s", "-1", "--forceflush", "-B", &address]);
        let mut server = tunnel
            .namespace(End::B)
            .spawn(process::piped(&mut server))?;
        if let Err(error) = wait_until_listening(&mut server) {
            process::stop(&mut server, Duration::ZERO);
            return Err(error);
        }
        let mut client = Command::new("iperf3");
        client.args([
            "-c",
            &address,
            "-J",
            "-t",
            &duration.as_secs_f64().round().to_string(),
        ]);
        // Hosts differ in their default, and bbr and cubic differ more than two contenders do.
        client
            .args(["-C", CONGESTION_CONTROL])
            .args(flow.arguments());
        let client = tunnel
            .namespace(End::A)
            .spawn(process::piped(&mut client))?;
        Ok(Self {
            server,
            client,
            duration,
        })
    }

    pub(crate) fn finish(mut self) -> Result<Throughput> {
        let report = process::finish(self.client, self.duration + GRACE);
        process::stop(&mut self.server, Duration::from_millis(200));
        let report = report.context("iperf3")?;
        Throughput::parse(&report)
    }
}

impl Flow {
    fn arguments(self) -> Vec<String> {
        match self {
            Self::Forward { streams } => vec!["-P".into(), streams.to_string()],
            Self::Reverse => vec!["-R".into()],
            Self::Both => vec!["--bidir".into()],
        }
    }
}

impl Throughput {
    fn parse(report: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(report).context("iperf3 printed no JSON")?;
        if let Some(error) = report["error"].as_str() {
            bail!("iperf3: {error}");
        }
        let end = &report["end"];
        let received = [&end["sum_received"], &end["sum_received_bidir_reverse"]];
        let sent = [&end["sum_sent"], &end["sum_sent_bidir_reverse"]];
        let total = |of: [&Value; 2], key: &str| -> f64 {
            of.iter().filter_map(|sum| sum[key].as_f64()).sum()
        };
        Ok(Self {
            bytes: total(received, "bytes"),
            gbps: total(received, "bits_per_second") / 1e9,
            retransmits: total(sent, "retransmits"),
        })
    }
}

fn wait_until_listening(server: &mut Child) -> Result<()> {
    let stdout = server
        .stdout
        .take()
        .context("the server's output is piped")?;
    let (listening, listens) = mpsc::channel();
    // The thread goes on reading, so that the server never blocks on a full pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line.contains("listening") {
                let _ = listening.send(());
            }
        }
    });
    listens
        .recv_timeout(Duration::from_secs(5))
        .context("the iperf3 server does not listen")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_are_added_up() {
        let report = r#"{"end": {
            "sum_sent": {"retransmits": 3}, "sum_sent_bidir_reverse": {"retransmits": 4},
            "sum_received": {"bytes": 10, "bits_per_second": 2e9},
            "sum_received_bidir_reverse": {"bytes": 5, "bits_per_second": 1e9}}}"#;
        let throughput = Throughput::parse(report).unwrap();
        assert_eq!(
            throughput,
            Throughput {
                bytes: 15.0,
                gbps: 3.0,
                retransmits: 7.0
            }
        );
    }

    #[test]
    fn an_error_in_the_report_is_an_error() {
        assert!(Throughput::parse(r#"{"error": "refused"}"#).is_err());
        assert!(Throughput::parse("").is_err());
    }
}
