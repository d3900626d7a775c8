//! A network on the oldest supported `nats-server` and on the newest, and none on Debian 12's.
//!
//! ```text
//!   m1 founds, m2 joins ── switch
//! ```

use anyhow::{Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, nats_server_of, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::{Backend, Outcome, Stage, tell};

#[test]
fn the_oldest_store_holds_a_network() -> Outcome {
    tell(Backend::IoUring, |stage| holds_a_network(stage, "2.12.8"))
}

#[test]
fn the_newest_store_holds_a_network() -> Outcome {
    tell(Backend::IoUring, |stage| holds_a_network(stage, "2.15.1"))
}

fn holds_a_network(stage: &Stage, version: &str) -> Result<()> {
    let segment = Segment::new(stage)?;
    let mut founder = segment.machine(stage, 1)?;
    founder.nats_server = nats_server_of(version);
    founder.start(stage)?;
    ensure!(founder.code("mesh init acme")? == "OK");
    let status = founder.json("status")?;
    ensure!(
        text(&status, "/payload/storage/version") == version,
        "{status}"
    );
    let mut joiner = segment.machine(stage, 2)?;
    joiner.start(stage)?;
    joiner.join(&founder)?;
    joiner.wait_ready(PATIENCE)?;
    ensure!(founder.code("machine rename m2 web")? == "OK");
    founder.stop()?;
    founder.start(stage)?;
    founder.wait_ready(PATIENCE)?;
    ensure!(founder.code("machine inspect web")? == "OK");
    Ok(())
}

/// A server that loses writes is refused by name, and nothing is left of the attempt.
#[test]
fn debians_store_is_refused() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machine = segment.machine(stage, 1)?;
        machine.nats_server = nats_server_of("2.9.10");
        machine.start(stage)?;
        let document = machine.json("mesh init acme")?;
        ensure!(text(&document, "/code") == "INSTALL_FAILED", "{document}");
        let message = text(&document, "/message");
        ensure!(
            message.contains("2.9.10") && message.contains("2.12.8"),
            "{document}"
        );
        ensure!(
            text(&document, "/hint").contains("--nats-server"),
            "{document}"
        );
        is_in_no_network(&machine)
    })
}

fn is_in_no_network(machine: &Machine) -> Result<()> {
    let status = machine.json("status")?;
    ensure!(status["payload"]["network"].is_null(), "{status}");
    for file in ["network.json", "ca.json", "nats"] {
        ensure!(!machine.data_dir.join(file).exists(), "{file} is left");
    }
    Ok(())
}
