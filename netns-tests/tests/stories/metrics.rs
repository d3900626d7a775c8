//! What Prometheus reads of a daemon in a network, before and after its store has gone.
//!
//! ```text
//!   m1 founds, m2 joins ── switch
//! ```

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::{PATIENCE, words};
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Outcome, tell};

const SCRAPED: &str = "127.0.0.1:9100";

#[test]
fn a_daemon_counts_its_peers_its_store_and_its_rings() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = Vec::new();
        for number in 1..=2 {
            let mut machine = segment.machine(stage, number)?;
            machine.flags = words(&format!("--metrics-listen {SCRAPED}"));
            machine.start(stage)?;
            machines.push(machine);
        }
        let (founder, joiner) = (&machines[0], &machines[1]);
        ensure!(value(founder, "ployz_network_running")? == 0);
        ensure!(founder.code("mesh init acme")? == "OK");
        joiner.join(founder)?;
        wait_until("a handshake", PATIENCE, || joiner.reaches("10.101.0.1"))?;
        names_the_peer(joiner, founder)?;
        for (name, expected) in [
            ("ployz_network_running", 1),
            ("ployz_machines", 2),
            ("ployz_store_connected", 1),
            ("ployz_udp_gso", 1),
            ("ployz_tun_tcp_offload", 1),
            ("ployz_dropped_total{reason=\"replay\"}", 0),
        ] {
            wait_until(format!("{name} to be {expected}"), PATIENCE, || {
                value(joiner, name).is_ok_and(|value| value == expected)
            })?;
        }
        ensure!(value(joiner, "ployz_ring_completions_max{shard=\"0\"}")? > 0);
        wait_until("the joiner's own record in view", PATIENCE, || {
            value(joiner, "ployz_view_revision").is_ok_and(|revision| revision >= 2)
        })?;
        ensure!(value(joiner, "ployz_view_age_seconds")? < 60);
        ensure!(value(founder, "ployz_store_server_running")? == 1);
        kill(founder.store_pid()?, Signal::SIGKILL)?;
        wait_until("the loss to be counted", PATIENCE, || {
            value(joiner, "ployz_store_disconnects_total").is_ok_and(|lost| lost > 0)
        })
    })
}

/// Everything about a peer has its public key, and that has a machine and a name.
fn names_the_peer(machine: &Machine, peer: &Machine) -> Result<()> {
    let record = peer.json("machine inspect m1")?;
    let key = text(&record, "/payload/desired/wireguard_key");
    let id = text(&record, "/payload/desired/id");
    let labels = format!("{{public_key=\"{key}\"}}");
    for name in [
        "rx_bytes_total",
        "tx_bytes_total",
        "last_handshake_timestamp_seconds",
    ] {
        ensure!(
            value(machine, &format!("ployz_peer_{name}{labels}"))? > 0,
            "{name}"
        );
    }
    let info = format!("ployz_peer_info{{public_key=\"{key}\",machine=\"{id}\",name=\"m1\"}}");
    ensure!(value(machine, &info)? == 1);
    Ok(())
}

/// One sample of a scrape.
fn value(machine: &Machine, name: &str) -> Result<u64> {
    let page = machine.netns.enter(scrape)?;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.with_context(|| format!("no {name} in\n{page}"))?;
    Ok(value.parse()?)
}

fn scrape() -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&SCRAPED.parse::<SocketAddr>()?, PATIENCE)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
