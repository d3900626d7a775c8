//! A daemon is replaced under traffic, and its supervisor keeps the TUN and the sockets meanwhile: no connection
//! breaks.
//!
//! ```text
//!   m1 (supervised, holds the store) ══ TCP ══ m2        10.0.0.1 ── switch ── 10.0.0.2
//! ```

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::{PATIENCE, words};
use ployz_netns_tests::counters::LinkBytes;
use ployz_netns_tests::supervisor::Supervisor;
use ployz_netns_tests::traffic::{Iperf, Protocol};
use ployz_netns_tests::wait::{wait_for, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::Value;

/// Other than the default: it has to be found again.
const PORT: u16 = 51_999;
/// What a restart may cost, with a debug build on a busy machine: a start and a handshake.
const GAP_MAX: Duration = Duration::from_secs(2);

#[test]
fn a_transfer_outlasts_restarts_on_io_uring() -> Outcome {
    tell(Backend::IoUring, |stage| outlast(stage, "io_uring", 1))
}

#[test]
fn a_transfer_outlasts_restarts_on_epoll_and_shards() -> Outcome {
    tell(Backend::IoUring, |stage| outlast(stage, "epoll", 2))
}

fn outlast(stage: &Stage, backend: &str, shards: usize) -> Result<()> {
    let segment = Segment::new(stage)?;
    let mut m2 = segment.machine(stage, 2)?;
    m2.start(stage)?;
    let mut m1 = segment.machine(stage, 1)?;
    m1.flags = words(&format!("--io-backend {backend} --shards {shards}"));
    let supervisor = Supervisor::new(&stage.place("notify"))?;
    start(stage, &supervisor, &mut m1)?;
    ensure!(m1.code(&format!("mesh init acme --wg-port {PORT}"))? == "OK");
    m2.join(&m1)?;
    m2.wait_ready(PATIENCE)?;
    let before = link(&m1)?;
    let (client, server) = (&m2.netns.clone(), &m1.netns.clone());
    let transfer = Iperf {
        client,
        server,
        target: text(&m1.json("status")?, "/payload/overlay_ip").parse()?,
        protocol: Protocol::Tcp,
        streams: 1,
        seconds: 6,
    };
    let report = transfer.run_during(|| {
        for kill in [false, true] {
            flow(&m1)?;
            if kill {
                m1.kill();
            } else {
                m1.stop()?;
            }
            ensure!(
                link(&m1)? == before,
                "the interface stays while nobody runs it"
            );
            start(stage, &supervisor, &mut m1)?;
            let gap = gap(&m1)?;
            show(backend, shards, kill, gap);
            ensure!(gap < GAP_MAX, "{gap:?}");
        }
        flow(&m1)
    })?;
    ensure!(report.bytes_received > 0);
    ensure!(link(&m1)? == before, "it is the same interface");
    let described = m1.netns.run(&format!("wg show {}", m1.interface))?.stdout;
    ensure!(
        described.contains(&format!("listening port: {PORT}")),
        "{described}"
    );
    m1.wait_ready(PATIENCE)?;
    start_anew_with_other_shards(stage, &supervisor, &mut m1, shards)?;
    m1.stop()?;
    supervisor.let_go();
    wait_until("the interface to go", PATIENCE, || {
        !m1.netns.has_link(&m1.interface)
    })
}

/// Waits until more has arrived than any buffer holds.
fn flow(machine: &Machine) -> Result<()> {
    const ENOUGH: u64 = 20_000_000;
    let received = || LinkBytes::of(&machine.netns, &machine.interface).map(|it| it.received);
    let before = received()?;
    wait_until("the transfer to go on", PATIENCE, || {
        received().is_ok_and(|now| now > before + ENOUGH)
    })
}

/// What does not fit is let go of, and said.
fn start_anew_with_other_shards(
    stage: &Stage,
    supervisor: &Supervisor,
    machine: &mut Machine,
    shards: usize,
) -> Result<()> {
    let before = link(machine)?;
    machine.stop()?;
    machine.flags = words(&format!("--shards {}", shards + 1));
    start(stage, supervisor, machine)?;
    ensure!(link(machine)? != before, "it is another interface");
    let said = format!("for {} shards", shards + 1);
    ensure!(machine.logged().contains(&said), "{}", machine.logged());
    let queues = |names: Vec<String>| names.iter().filter(|it| it.starts_with("tun-")).count();
    wait_until("the new queues to be kept", PATIENCE, || {
        queues(supervisor.names()) == shards + 1
    })?;
    machine.wait_ready(PATIENCE)
}

fn start(stage: &Stage, supervisor: &Supervisor, machine: &mut Machine) -> Result<()> {
    supervisor.start(|prefix| {
        machine.prefix = prefix;
        machine.start(stage)
    })
}

/// The interface's number and addresses.
fn link(machine: &Machine) -> Result<Value> {
    let line = format!("ip -json address show dev {}", machine.interface);
    let shown: Value = serde_json::from_str(&machine.netns.run(&line)?.stdout)?;
    let addresses = shown[0]["addr_info"].as_array().context("addresses")?;
    let mut addresses: Vec<&Value> = addresses.iter().map(|it| &it["local"]).collect();
    addresses.sort_by_key(|it| it.to_string());
    Ok(serde_json::json!([shown[0]["ifindex"], addresses]))
}

fn gap(machine: &Machine) -> Result<Duration> {
    let details = "/payload/data_plane/details/handover_gap_ms";
    let ms = wait_for("the gap to be measured", PATIENCE, || {
        text(&machine.json("status").ok()?, details).parse().ok()
    })?;
    Ok(Duration::from_millis(ms))
}

#[expect(clippy::print_stderr, reason = "a figure for whoever watches")]
fn show(backend: &str, shards: usize, kill: bool, gap: Duration) {
    let how = if kill { "killed" } else { "stopped" };
    eprintln!("{backend}, {shards} shards, {how}: no traffic for {gap:?}");
}
