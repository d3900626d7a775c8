//! The firewall of docs/ployz.nft on every machine: a network is founded and joined through it, and nothing else comes
//! in.
//!
//! ```text
//!   m1 founds, m2 joins ── switch
//! ```

use anyhow::{Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Outcome, tell};

const RULES: &str = include_str!("../../../docs/ployz.nft");

#[test]
fn a_network_lives_behind_the_documented_firewall() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 2)?;
        for machine in &machines {
            close(machine)?;
        }
        let (founder, joiner) = (&machines[0], &machines[1]);
        ensure!(founder.code("mesh init acme")? == "OK");
        joiner.join(founder)?;
        joiner.wait_ready(PATIENCE)?;
        wait_until("the overlay", PATIENCE, || {
            founder.reaches("10.101.1.1") && joiner.reaches("10.101.0.1")
        })?;
        let store = "timeout 1 bash -c </dev/tcp/";
        ensure!(
            joiner
                .netns
                .attempt(&format!("{store}10.101.0.1/4222"))?
                .succeeded()
        );
        ensure!(
            !joiner
                .netns
                .attempt(&format!("{store}10.0.0.1/4222"))?
                .succeeded()
        );
        Ok(())
    })
}

fn close(machine: &Machine) -> Result<()> {
    let rules = RULES.replace("ployz0", &machine.interface);
    let loaded = machine
        .netns
        .attempt_within("nft -f -", rules.as_bytes(), PATIENCE)?;
    loaded.success().map(drop)
}
