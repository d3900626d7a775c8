//! What flows through a tunnel: ping and iperf3, with their results parsed.

use std::fmt;
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::{PATIENCE, mortal, words};
use crate::counters::{netstat, snmp6};
use crate::pair::Family;
use crate::wait::wait_until;
use crate::{Host, Netns};

/// Slower than this, in bits a second, is not working, on whatever machine.
const TRICKLE: f64 = 10e6;

/// The load of the kernel's own selftest, from `a` to `b` and back, in both families.
pub fn everything(a: &Host, b: &Host) -> Result<()> {
    for (from, to, family) in [(b, a, Family::V4), (a, b, Family::V6)] {
        pings(&from.netns, to.inner(family), 1000)?;
    }
    let tcp = |streams, seconds| (Protocol::Tcp, streams, seconds);
    let udp = (Protocol::Udp, 1, 1);
    for (from, to, family, (protocol, streams, seconds)) in [
        (a, b, Family::V4, tcp(1, 2)),
        (b, a, Family::V6, tcp(1, 2)),
        (a, b, Family::V4, udp),
        (b, a, Family::V6, udp),
        (b, a, Family::V4, tcp(4, 1)),
        (a, b, Family::V6, tcp(50, 2)),
    ] {
        let target = to.inner(family);
        let (client, server) = (&from.netns, &to.netns);
        Iperf {
            client,
            server,
            target,
            protocol,
            streams,
            seconds,
        }
        .run()?;
    }
    // What was queued behind the load is gone, and the tunnel still answers.
    pings(&a.netns, b.inner(Family::V4), 10)
}

/// One ping, which has to be answered.
pub fn ping(netns: &Netns, target: IpAddr) -> Result<()> {
    pings(netns, target, 1)
}

/// As fast as they are answered; not one may be lost.
pub fn pings(netns: &Netns, target: IpAddr, count: u32) -> Result<()> {
    let report = ping_flood(netns, target, count, "")?;
    ensure!(report.received == count, "{report:?} to {target}");
    Ok(())
}

/// Answers to pings that a namespace has had so far.
fn echo_replies(netns: &Netns, target: IpAddr) -> Result<u64> {
    match target {
        IpAddr::V4(_) => netstat(netns, "Icmp", "InEchoReps"),
        IpAddr::V6(_) => snmp6(netns, "Icmp6InEchoReplies"),
    }
}

/// Pings that must not be answered.
pub fn ping_in_vain(netns: &Netns, target: IpAddr) -> Result<()> {
    let report = ping_flood(netns, target, 1, "")?;
    ensure!(
        report.received == 0,
        "{target} answered a ping that must not reach it"
    );
    Ok(())
}

/// `ping -f` with more flags.
pub fn ping_flood(netns: &Netns, target: IpAddr, count: u32, flags: &str) -> Result<PingReport> {
    let before = echo_replies(netns, target)?;
    let line = format!("ping -n -q -f -W 1 -c {count} {flags} {target}");
    let finished = netns.attempt_within(&line, &[], PATIENCE)?;
    let report = PingReport::parse(&finished.stdout).with_context(|| finished.to_string())?;
    // On a busy machine ping may be too late for its own last answer; the kernel has counted it.
    let counted = echo_replies(netns, target)?.saturating_sub(before);
    let counted = u32::try_from(counted)?.min(report.sent);
    Ok(PingReport {
        received: report.received.max(counted),
        ..report
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingReport {
    pub sent: u32,
    pub received: u32,
}

impl PingReport {
    fn parse(stdout: &str) -> Result<Self> {
        let line = stdout
            .lines()
            .find(|line| line.contains("packets transmitted"));
        let mut numbers = line
            .context("no summary")?
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok());
        let sent = numbers.next().context("none sent")?;
        Ok(Self {
            sent,
            received: numbers.next().context("none received")?,
        })
    }
}

/// One run of iperf3 from a client to a server.
#[derive(Debug, Clone, Copy)]
pub struct Iperf<'a> {
    pub client: &'a Netns,
    pub server: &'a Netns,
    pub target: IpAddr,
    pub protocol: Protocol,
    pub streams: u32,
    pub seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    /// As fast as the sender can.
    Udp,
}

#[derive(Debug, Clone, Copy)]
pub struct IperfReport {
    /// What arrived, in bits a second.
    pub bits_per_second: f64,
    pub bytes_received: u64,
    /// TCP only.
    pub retransmits: u64,
    /// UDP only, 0 to 100.
    pub lost_percent: f64,
}

impl fmt::Display for IperfReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bits_per_second,
            bytes_received,
            retransmits,
            lost_percent,
        } = self;
        let megabits = bits_per_second / 1e6;
        write!(f, "{megabits:.0} Mb/s, {bytes_received} bytes, ")?;
        write!(f, "{retransmits} retransmits, {lost_percent:.1} % lost")
    }
}

impl<'a> Iperf<'a> {
    /// One stream of TCP between two hosts.
    #[must_use]
    pub fn tcp(client: &'a Host, server: &'a Host, inner: Family, seconds: u32) -> Self {
        Self {
            client: &client.netns,
            server: &server.netns,
            target: server.inner(inner),
            protocol: Protocol::Tcp,
            streams: 1,
            seconds,
        }
    }

    /// Runs to the end; every stream has to get through.
    pub fn run(self) -> Result<IperfReport> {
        let server = self.serve()?;
        let report = self.finish(self.start_client()?);
        drop(server);
        report
    }

    /// Runs while `work` does, and reports once both are done.
    pub fn run_during(self, work: impl FnOnce() -> Result<()>) -> Result<IperfReport> {
        let server = self.serve()?;
        let client = self.start_client()?;
        work()?;
        let report = self.finish(client);
        drop(server);
        report
    }

    /// Starts the server and a client that nobody waits for.
    pub fn start(self) -> Result<(Running, Running)> {
        let server = self.serve()?;
        Ok((server, Running(self.start_client()?)))
    }

    fn serve(self) -> Result<Running> {
        let line = format!("iperf3 -s -1 -B {}", self.target);
        let argv = self.server.argv(&words(&line));
        let child = mortal(&argv)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let server = Running(child);
        wait_until("iperf3 to listen", PATIENCE, || {
            self.server
                .run("ss -Hltn sport = :5201")
                .is_ok_and(|shown| shown.stdout.contains("LISTEN"))
        })?;
        Ok(server)
    }

    fn start_client(self) -> Result<Child> {
        let Self {
            target,
            streams,
            seconds,
            ..
        } = self;
        let protocol = match self.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "-u -b 0",
        };
        let line = format!("iperf3 -J -c {target} -P {streams} -t {seconds} {protocol}");
        let argv = self.client.argv(&words(&line));
        Ok(mortal(&argv)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?)
    }

    fn finish(self, client: Child) -> Result<IperfReport> {
        let patience = Duration::from_secs(self.seconds.into()) + PATIENCE;
        let text = Running(client).output(patience)?;
        let json: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        ensure!(
            json.get("error").is_none(),
            "iperf3 to {}: {}",
            self.target,
            json["error"]
        );
        let report = self.parse(&json["end"]).with_context(|| text)?;
        ensure!(
            report.bits_per_second >= TRICKLE,
            "{self:?}: no more than {report}"
        );
        Ok(report)
    }

    fn parse(self, end: &Value) -> Result<IperfReport> {
        for stream in end["streams"].as_array().context("streams")? {
            let bytes = match self.protocol {
                Protocol::Tcp => &stream["receiver"]["bytes"],
                Protocol::Udp => &stream["udp"]["bytes"],
            };
            ensure!(
                bytes.as_u64().is_some_and(|bytes| bytes > 0),
                "a stream starved: {stream}"
            );
        }
        let lost_percent = match self.protocol {
            Protocol::Tcp => 0.0,
            Protocol::Udp => end["sum"]["lost_percent"]
                .as_f64()
                .context("lost_percent")?,
        };
        let (received, share) = match self.protocol {
            Protocol::Tcp => (&end["sum_received"], 1.0),
            // iperf3 3.12 reports what a UDP sender sent, and how much of it was lost.
            Protocol::Udp => (&end["sum"], 1.0 - lost_percent / 100.0),
        };
        let of = |key: &str| received[key].as_f64().with_context(|| format!("no {key}"));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a byte count"
        )]
        let bytes_received = (of("bytes")? * share) as u64;
        Ok(IperfReport {
            bits_per_second: of("bits_per_second")? * share,
            bytes_received,
            retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
            lost_percent,
        })
    }
}

/// A program in the background that ends with its owner.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a command line inside `netns`.
    pub fn start(netns: &Netns, line: &str) -> Result<Self> {
        let child = mortal(&netns.argv(&words(line)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    fn output(mut self, patience: Duration) -> Result<String> {
        let pipe = self.0.stdout.take().context("no stdout")?;
        let reader = std::thread::spawn(move || std::io::read_to_string(pipe));
        wait_until("the program to end", patience, || !self.is_running())?;
        Ok(reader.join().ok().context("the reader panicked")??)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
