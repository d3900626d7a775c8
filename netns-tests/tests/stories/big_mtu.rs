//! An MTU of more than 34 KiB: one packet no longer fits in what most buffers are made for.
//!
//! ```text
//!   a ===[ mtu 34816 ]=== b      the load of `traffic.rs`, and pings that fill the MTU to the byte
//! ```

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use ployz_netns_tests::pair::{Family, OVERHEAD};
use ployz_netns_tests::{Host, Pair, Plan, Stage, story, traffic};

/// The kernel selftest's: what is left of 34816 when an Ethernet of 1500 leaves 1420.
const MTU: u32 = 34816 - OVERHEAD;

story!(over_both_families);

fn over_both_families(stage: &Stage) -> Result<()> {
    for outer in Family::BOTH {
        let pair = Pair::new(
            stage,
            Plan {
                outer,
                mtu: MTU,
                ..Plan::of(stage)
            },
        )?;
        fill_the_mtu(&pair.a, &pair.b).with_context(|| format!("outer {outer:?}"))?;
        traffic::everything(&pair.a, &pair.b).with_context(|| format!("outer {outer:?}"))?;
        pair.stop(Signal::SIGTERM)?;
    }
    Ok(())
}

fn fill_the_mtu(a: &Host, b: &Host) -> Result<()> {
    for (family, headers) in [(Family::V4, 20 + 8), (Family::V6, 40 + 8)] {
        let flags = format!("-M do -s {}", MTU - headers);
        let report = traffic::ping_flood(&a.netns, b.inner(family), 20, &flags)?;
        ensure!(
            report.received == 20,
            "{report:?} of full packets, inner {family:?}"
        );
    }
    Ok(())
}
