//! A steady stream through a tunnel for a long time: does anything happen when the keys change?
//!
//! ```text
//!   a ========== b      100 Mb/s of UDP both ways, 1 burst a millisecond, and one TCP connection
//! ```
//!
//! Prints the largest gap between two deliveries, over all and around each rekey (every 120 s), and fails if one is
//! longer than [`GAP_MAX`], or if the connection breaks.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ployz_netns_tests::contender::Backend;
use ployz_netns_tests::counters::netstat;
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::wait::{now, pause};
use ployz_netns_tests::{Host, Pair, Plan, Stage, tell};

const GAP_MAX: Duration = Duration::from_millis(250);
/// Every gap longer than this is remembered with its time.
const GAP_NOTED: Duration = Duration::from_millis(10);
/// A gap this near to a rekey counts as one of the rekey.
const AROUND: Duration = Duration::from_secs(3);
const DATAGRAM: usize = 1250;
/// 10 datagrams of 1250 bytes a millisecond are 100 Mb/s.
const BURST: u64 = 10;
const PORT: u16 = 7000;
const PATIENCE: Duration = Duration::from_millis(500);

fn main() -> Result<()> {
    tell(Backend::IoUring, soak)
}

fn minutes() -> Result<u64> {
    let argument = std::env::args().nth(1);
    argument.map_or(Ok(10), |text| {
        text.parse()
            .with_context(|| format!("'{text}' is no number of minutes"))
    })
}

fn soak(stage: &Stage) -> Result<()> {
    let minutes = minutes()?;
    let Pair { mut a, mut b } = Pair::new(stage, Plan::of(stage))?;
    ployz_netns_tests::traffic::ping(&a.netns, b.inner(Family::V4))?;
    let start = now();
    let stop = Arc::new(AtomicBool::new(false));
    let there = stream(&a, &b, start, &stop)?;
    let back = stream(&b, &a, start, &stop)?;
    let connection = connection(&a, &b, &stop)?;
    let memory_before = a.daemon.memory_kib()?;
    let rekeys = watch(&mut a, &mut b, start, Duration::from_secs(60 * minutes))?;
    stop.store(true, Ordering::Relaxed);
    let bytes = connection
        .join()
        .map_err(|_| anyhow::anyhow!("the connection's thread panicked"))??;
    let reports = [("a to b", there.finish()?), ("b to a", back.finish()?)];
    let retransmits = netstat(&a.netns, "Tcp", "RetransSegs")?;
    say(&format!(
        "{minutes} minutes, {} rekeys at {rekeys:.1?} s",
        rekeys.len()
    ));
    say(&format!(
        "TCP: {bytes} bytes, {retransmits} segments sent again, no reset"
    ));
    say(&format!(
        "memory of a: {memory_before} KiB at first, {} KiB at last",
        a.daemon.memory_kib()?
    ));
    for (way, report) in &reports {
        say(&format!("{way}: {}", report.line(&rekeys)));
    }
    for (way, report) in &reports {
        ensure!(
            report.longest <= GAP_MAX,
            "{way}: a gap of {:?}",
            report.longest
        );
    }
    ensure!(
        minutes < 3 || !rekeys.is_empty(),
        "no rekey in {minutes} minutes"
    );
    Ok(())
}

/// Until the time is over; the seconds at which a new handshake was seen.
fn watch(a: &mut Host, b: &mut Host, start: Instant, span: Duration) -> Result<Vec<f64>> {
    let mut rekeys = Vec::new();
    let mut last = a.wg().show("latest-handshakes")?;
    while start.elapsed() < span {
        pause(Duration::from_millis(500));
        ensure!(a.daemon.is_alive() && b.daemon.is_alive(), "a daemon died");
        let latest = a.wg().show("latest-handshakes")?;
        if latest != last {
            last = latest;
            rekeys.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(rekeys)
}

struct Stream {
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<Report>>,
}

impl Stream {
    fn finish(self) -> Result<Report> {
        // The receiver first: if it failed, that is why the sender did.
        let mut report = self
            .receiver
            .join()
            .map_err(|_| anyhow::anyhow!("a receiver panicked"))?
            .context("receiving")?;
        let sent = self
            .sender
            .join()
            .map_err(|_| anyhow::anyhow!("a sender panicked"))?
            .context("sending")?;
        report.sent = sent;
        Ok(report)
    }
}

#[derive(Debug, Default)]
struct Report {
    sent: u64,
    received: u64,
    overtaken: u64,
    longest: Duration,
    /// Seconds since the start, and how long.
    gaps: Vec<(f64, Duration)>,
}

impl Report {
    fn line(&self, rekeys: &[f64]) -> String {
        let is_near = |at: f64| {
            rekeys
                .iter()
                .any(|rekey| (at - rekey).abs() < AROUND.as_secs_f64())
        };
        let near = self
            .gaps
            .iter()
            .filter(|(at, _)| is_near(*at))
            .map(|(_, gap)| *gap)
            .max();
        format!(
            "{} sent, {} lost, {} overtaken, longest gap {:?}, longest around a rekey {}, {} gaps above {GAP_NOTED:?}",
            self.sent,
            self.sent.saturating_sub(self.received),
            self.overtaken,
            self.longest,
            near.map_or_else(|| format!("below {GAP_NOTED:?}"), |gap| format!("{gap:?}")),
            self.gaps.len(),
        )
    }
}

fn stream(from: &Host, to: &Host, start: Instant, stop: &Arc<AtomicBool>) -> Result<Stream> {
    let target = SocketAddr::new(to.inner(Family::V4), PORT);
    let source = SocketAddr::new(from.inner(Family::V4), 0);
    let receiver = to.netns.enter(|| Ok(UdpSocket::bind(target)?))?;
    let sender = from.netns.enter(|| Ok(UdpSocket::bind(source)?))?;
    sender.connect(target)?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let (stop_sending, stop_receiving) = (Arc::clone(stop), Arc::clone(stop));
    Ok(Stream {
        receiver: std::thread::spawn(move || receive(&receiver, start, &stop_receiving)),
        sender: std::thread::spawn(move || send(&sender, &stop_sending)),
    })
}

fn send(socket: &UdpSocket, stop: &AtomicBool) -> Result<u64> {
    let mut datagram = [0; DATAGRAM];
    let begun = now();
    let mut sent = 0u64;
    while !stop.load(Ordering::Relaxed) {
        // As many as are due, so that a late wake-up does not lower the rate.
        let due = begun.elapsed().as_millis() as u64 * BURST;
        while sent < due {
            datagram[..8].copy_from_slice(&sent.to_be_bytes());
            socket.send(&datagram)?;
            sent += 1;
        }
        pause(Duration::from_millis(1));
    }
    Ok(sent)
}

fn receive(socket: &UdpSocket, start: Instant, stop: &AtomicBool) -> Result<Report> {
    let mut report = Report::default();
    let mut datagram = [0; DATAGRAM];
    let mut newest = None;
    let mut last = None::<Instant>;
    loop {
        match socket.recv(&mut datagram) {
            Ok(len) => ensure!(len == DATAGRAM, "a datagram of {len} bytes"),
            Err(_) if stop.load(Ordering::Relaxed) => return Ok(report),
            // Nothing for a while, or a child of the stage has ended.
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                continue;
            }
            Err(error) => bail!(error),
        }
        let at = now();
        let gap = last.map_or(Duration::ZERO, |last| at - last);
        last = Some(at);
        report.received += 1;
        report.longest = report.longest.max(gap);
        if gap > GAP_NOTED {
            report.gaps.push(((at - start).as_secs_f64(), gap));
        }
        let number = u64::from_be_bytes(*datagram.first_chunk().context("short")?);
        report.overtaken += u64::from(newest.is_some_and(|newest| number < newest));
        newest = newest.max(Some(number));
    }
}

/// One TCP connection that lives as long as everything; how many bytes it has carried.
fn connection(from: &Host, to: &Host, stop: &Arc<AtomicBool>) -> Result<JoinHandle<Result<u64>>> {
    let target = SocketAddr::new(to.inner(Family::V4), PORT);
    let listener = to.netns.enter(|| Ok(TcpListener::bind(target)?))?;
    let mut client = from.netns.enter(|| Ok(TcpStream::connect(target)?))?;
    let (mut server, _) = listener.accept()?;
    let stop = Arc::clone(stop);
    let reader = std::thread::spawn(move || -> Result<u64> {
        let mut buffer = vec![0; 64 << 10];
        let mut bytes = 0;
        loop {
            match server
                .read(&mut buffer)
                .context("the connection was reset")?
            {
                0 => return Ok(bytes),
                len => bytes += len as u64,
            }
        }
    });
    Ok(std::thread::spawn(move || {
        let chunk = [0x5a; 16 << 10];
        while !stop.load(Ordering::Relaxed) {
            client
                .write_all(&chunk)
                .context("the connection was reset")?;
            pause(Duration::from_millis(5));
        }
        drop(client);
        reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))?
    }))
}

#[expect(
    clippy::print_stdout,
    reason = "the report is what this program is for"
)]
fn say(line: &str) {
    println!("{line}");
}
