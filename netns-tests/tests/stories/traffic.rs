//! Everything that the kernel's selftest sends, over IPv4 and over IPv6.
//!
//! ```text
//!   a ========== b      ping -f, TCP with 1, 4 and 50 streams, UDP at full speed, inner IPv4 and IPv6
//! ```

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::{Pair, Plan, Stage, story, traffic};

story!(over_both_families);

fn over_both_families(stage: &Stage) -> Result<()> {
    for outer in Family::BOTH {
        let pair = Pair::new(stage, Plan::over(stage, outer))?;
        traffic::everything(&pair.a, &pair.b).with_context(|| format!("outer {outer:?}"))?;
        pair.stop(Signal::SIGTERM)?;
    }
    Ok(())
}
