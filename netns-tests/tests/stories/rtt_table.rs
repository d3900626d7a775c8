//! What `docs/rtt.md` shows: how far reports are from the truth, idle and under load, beside what `ping` and the
//! process's own clock say in the same run, and what tests cost. Takes minutes and a quiet machine:
//!
//! ```text
//! RTT_CHART=docs/rtt.svg cargo test -p ployz-netns-tests --test stories -- --ignored --nocapture rtt_table::table
//! ```

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use ployz_engine::PublicKey;
use ployz_netns_tests::delay_link::{held, median};
use ployz_netns_tests::pair::{Family, Host};
use ployz_netns_tests::peer_swarm::{Hub, PeerSwarm};
use ployz_netns_tests::rtt_pair::RttPair;
use ployz_netns_tests::traffic::{self, Iperf};
use ployz_netns_tests::wait::{pause, wait_until};
use ployz_netns_tests::{Backend, Outcome, Pair, Plan, Stage, tell};

/// As many as are in a report.
const COUNT: u16 = 256;
/// 500 a second for 20 s.
const MANY: u16 = 10_000;
/// Between two tests of a burst.
const INTERVAL: Duration = Duration::from_millis(2);
const ROUNDS: u32 = 5;
const PEERS: u8 = 200;
/// Six tests of each.
const SPAN: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "takes minutes and a quiet machine"]
fn table() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let load = fs::read_to_string("/proc/loadavg")?;
        print(&format!("load average {load}"));
        print(
            "| way | truth | kernel's stamps | the process's clock | ping |\n|---|---|---|---|---|",
        );
        let us = Duration::from_micros;
        let mut rows = Vec::new();
        for (name, hold_us, jitter_us) in [
            ("0, idle", 0, 0),
            ("100 us, idle", 100, 0),
            ("1 ms, idle", 1_000, 0),
            ("20 ms, idle", 20_000, 0),
            ("100 us and up to 100 more", 100, 100),
            ("1 ms and up to 1 more", 1_000, 1_000),
        ] {
            let met = RttPair::meet(stage, held(us(hold_us), us(jitter_us)))?;
            rows.push(Row::measure(name, &met)?);
        }
        for (name, hold_us) in [("100 us, TCP", 100), ("1 ms, TCP", 1_000)] {
            let met = RttPair::meet(stage, held(us(hold_us), Duration::ZERO))?;
            let Pair { a, b } = &met.pair;
            let tcp = Iperf::tcp(a, b, Family::V4, 8).run_during(|| {
                rows.push(Row::measure(name, &met)?);
                Ok(())
            })?;
            print(&format!("while TCP has {tcp}"));
        }
        if let Some(path) = env::var_os("RTT_CHART") {
            fs::write(path, chart(&rows))?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "takes minutes and a quiet machine"]
fn cost() -> Outcome {
    tell(Backend::IoUring, |stage| {
        many_peers(stage)?;
        many_tests(stage)
    })
}

/// Medians.
struct Row {
    name: &'static str,
    truth: Duration,
    kernel: Duration,
    user: Duration,
    ping: Duration,
}

impl Row {
    fn measure(name: &'static str, met: &RttPair) -> Result<Self> {
        let measured = met.measure(COUNT)?;
        let row = Self {
            name,
            truth: measured.truth,
            kernel: measured.report.p50,
            user: measured.report.tunnel_p50,
            ping: ping(&met.pair)?,
        };
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let errors = row.errors_us();
        print(&format!(
            "| {name} | {:.1} us | {:+.1} us | {:+.1} us | {:+.1} us |",
            us(row.truth),
            errors[0],
            errors[1],
            errors[2],
        ));
        Ok(row)
    }

    fn errors_us(&self) -> [f64; 3] {
        [self.kernel, self.user, self.ping]
            .map(|said| (said.as_secs_f64() - self.truth.as_secs_f64()) * 1e6)
    }
}

/// The median of as many pings through the tunnel, as far apart; past 10 ms it says no more than tenths of a
/// millisecond.
fn ping(pair: &Pair) -> Result<Duration> {
    let target = pair.b.inner(Family::V4);
    let line = format!("ping -n -i 0.002 -c {COUNT} {target}");
    let finished = pair.a.netns.run(&line)?;
    let times = finished.stdout.lines().filter_map(|line| {
        let (_, time) = line.split_once("time=")?;
        let ms: f64 = time.strip_suffix(" ms")?.parse().ok()?;
        Some(Duration::from_secs_f64(ms / 1e3))
    });
    Ok(median(&times.collect::<Vec<_>>()))
}

/// A processor's time for a test and its reply at either end, and what TCP loses to 500 of them a second.
fn many_tests(stage: &Stage) -> Result<()> {
    let pair = Pair::new(stage, Plan::of(stage))?;
    let Pair { a, b } = &pair;
    traffic::ping(&a.netns, b.inner(Family::V4))?;
    silence(a)?;
    let before = [processor_ns(a)?, processor_ns(b)?];
    a.measure(MANY)?;
    // Whoever asks whether it is over has a price of its own.
    pause(INTERVAL * MANY.into() + PATIENCE / 20);
    let took_us = |host, before: u64| -> Result<f64> {
        let ns = processor_ns(host)?.saturating_sub(before);
        Ok(ns as f64 / 1e3 / f64::from(MANY))
    };
    let (asks_us, answers_us) = (took_us(a, before[0])?, took_us(b, before[1])?);
    print(&format!(
        "a test takes its sender {asks_us:.1} us of a processor, and its reflector {answers_us:.1} us"
    ));
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (tests, rates) in [0, 2_500].into_iter().zip(&mut rates) {
            let tcp = Iperf::tcp(a, b, Family::V4, 4).run_during(|| match tests {
                0 => Ok(()),
                tests => a.measure(tests),
            })?;
            rates.push(tcp.bits_per_second / 1e9);
            silence(a)?;
        }
    }
    print(&format!(
        "Gb/s without tests and with 500 a second: {rates:.2?}"
    ));
    Ok(())
}

/// What 200 peers cost that answer tests, and 200 that do not, each for a while; all use their sessions.
fn many_peers(stage: &Stage) -> Result<()> {
    for have_clocks in [true, false] {
        let pair = Pair::strangers(stage, Plan::of(stage))?;
        let Pair { a, b } = &pair;
        let IpAddr::V4(inner) = a.inner(Family::V4) else {
            bail!("IPv4 was asked for");
        };
        let hub = Hub {
            public_key: PublicKey::from_base64(&a.keys.public)?,
            endpoint: a.endpoint(Family::V4),
            inner,
        };
        let swarm = PeerSwarm::start(&b.netns, hub, PEERS, have_clocks)?;
        for (key, inner) in &swarm.peers {
            a.wg().set(&format!("peer {key} allowed-ips {inner}/32"))?;
        }
        // Handshakes, first tests and bursts.
        pause(Duration::from_secs(25));
        let (sent, before) = (tests_sent(a)?, processor_ns(a)?);
        pause(SPAN);
        let took_ms = (processor_ns(a)? - before) as f64 / 1e6;
        let tests = tests_sent(a)? - sent;
        print(&format!(
            "{PEERS} peers, {tests} tests in {SPAN:?}: {:.2} % of a core",
            took_ms / SPAN.as_secs_f64() / 10.0
        ));
    }
    Ok(())
}

fn tests_sent(a: &Host) -> Result<u64> {
    let status = a.daemon.uapi().status()?;
    let lines = status.iter().filter(|(key, _)| key.starts_with("rtt_"));
    let sent = lines.filter_map(|(_, line)| {
        let words = &mut line.split(' ');
        words.find_map(|word| word.strip_prefix("sent=")?.parse::<u64>().ok())
    });
    Ok(sent.sum())
}

fn silence(a: &Host) -> Result<()> {
    wait_until("the tests to be over", PATIENCE, || {
        let counts = a.rtt().map(|rtt| rtt.counts);
        counts.is_some_and(|it| it.sent > 1 && it.under_way == 0)
    })
}

/// What all threads of a daemon have had of processors.
fn processor_ns(host: &Host) -> Result<u64> {
    let mut total_ns = 0;
    for task in fs::read_dir(format!("/proc/{}/task", host.daemon.pid()))? {
        let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
        let ns = schedstat.split(' ').next().context("a number")?;
        total_ns += ns.parse::<u64>()?;
    }
    Ok(total_ns)
}

/// Bars as long as the logarithm of the error, from a tenth of a microsecond on.
fn chart(rows: &[Row]) -> String {
    const COLOURS: [&str; 3] = ["#2f6f4f", "#b0893a", "#8a97a5"];
    const NAMES: [&str; 3] = ["kernel's stamps (reported)", "the process's clock", "ping"];
    let height = 60 + rows.len() * 52;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"760\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"20\" font-size=\"14\">How far the median is from the truth, in microseconds (logarithmic)</text>\n"
    );
    for (column, (name, colour)) in NAMES.iter().zip(COLOURS).enumerate() {
        let x = 16 + column * 240;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"30\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" y=\"39\">{name}</text>",
            x + 16
        );
    }
    for (number, row) in rows.iter().enumerate() {
        let top = 60 + number * 52;
        let _ = writeln!(svg, "<text x=\"16\" y=\"{}\">{}</text>", top + 24, row.name);
        for (bar, (error_us, colour)) in row.errors_us().into_iter().zip(COLOURS).enumerate() {
            let y = top + bar * 14;
            let width = ((error_us.abs() / 0.1).max(1.0).log10() * 90.0).round();
            let _ = writeln!(
                svg,
                "<rect x=\"210\" y=\"{y}\" width=\"{width}\" height=\"11\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\" font-size=\"10\">{error_us:+.1}</text>",
                216.0 + width,
                y + 9
            );
        }
    }
    svg + "</svg>\n"
}

#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn print(text: &str) {
    println!("{text}");
}
