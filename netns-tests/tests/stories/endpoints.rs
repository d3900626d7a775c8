//! Machines that say several endpoints, of which the first leads nowhere.
//!
//! ```text
//!   m1 founds, m2 and m3 join ── switch        10.0.0.99: nobody
//! ```

use std::time::Duration;

use anyhow::ensure;
use ployz_netns_tests::cluster::Segment;
use ployz_netns_tests::command::words;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Outcome, tell};

/// The first endpoint gets 10 s, and it is looked every 5 s; the rest is for a machine that is busy.
const FOUND_WAIT: Duration = Duration::from_secs(40);

#[test]
fn a_peer_is_found_at_its_second_endpoint() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = Vec::new();
        for number in 1..=3 {
            let mut machine = segment.machine(stage, number)?;
            machine.flags = words(&format!(
                "--wg-endpoint 10.0.0.99:51820 --wg-endpoint 10.0.0.{number}:51820"
            ));
            machine.start(stage)?;
            machines.push(machine);
        }
        ensure!(machines[0].code("mesh init acme")? == "OK");
        for joiner in &machines[1..] {
            let token = machines[0].invite("")?;
            ensure!(joiner.import(&token)?["ok"] == true);
        }
        for (from, to) in [(1, "10.101.0.1"), (2, "10.101.0.1"), (1, "10.101.2.1")] {
            wait_until(format!("m{} to reach {to}", from + 1), FOUND_WAIT, || {
                machines[from].reaches(to)
            })?;
        }
        Ok(())
    })
}
