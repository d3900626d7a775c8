//! Somewhere on the way of every batch only the first datagram survives, as some kernels and network cards do it.
//!
//! ```text
//!   a ====== relay ====== b      each believes that the other is at a port of the relay, which is on b's host
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::relay::Relay;
use ployz_netns_tests::traffic::Iperf;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Pair, Stage, story};

/// From the first large packet: a round trip for the MTU and two for each of four trains, at ticks of 100 ms, is a
/// second. A train that told nothing costs another.
const VERDICT: Duration = Duration::from_secs(4);
/// A busy relay that loses datagrams loses questions and reports as well, and each of those costs another second.
const VERDICT_AMID_LOSS: Duration = Duration::from_secs(8);

mod mangled {
    use super::*;
    story!(datagrams_are_sent_one_by_one);
}

mod lossy {
    use super::*;
    story!(loss_is_not_blamed_on_batches);
}

fn datagrams_are_sent_one_by_one(stage: &Stage) -> Result<()> {
    for mangle in [
        |_: &mut [u8], position| position == 0,
        |datagram: &mut [u8], position| {
            if position > 0 && datagram.len() > 100 {
                datagram[60] ^= 1;
            }
            true
        },
    ] {
        let (pair, _relay) = Relay::between_strangers(stage, Box::new(mangle))?;
        verdict(&pair, "broken", VERDICT)?;
    }
    Ok(())
}

fn loss_is_not_blamed_on_batches(stage: &Stage) -> Result<()> {
    let count = AtomicU32::new(0);
    let lose_some = move |_: &mut [u8], _| count.fetch_add(1, Ordering::Relaxed) % 20 != 7;
    let (pair, _relay) = Relay::between_strangers(stage, Box::new(lose_some))?;
    verdict(&pair, "works", VERDICT_AMID_LOSS)
}

/// While a sends in bulk it finds out what the path does, and TCP gets through all the same.
fn verdict(pair: &Pair, expected: &str, patience: Duration) -> Result<()> {
    let Pair { a, b } = pair;
    let transfer = Iperf::tcp(a, b, Family::V4, patience.as_secs() as u32 + 1);
    transfer.run_during(|| {
        let mut said = None;
        let what = format!("batches to be found: {expected}");
        wait_until(what, patience, || {
            said = a.path();
            said.as_ref().is_some_and(|path| path.batches == expected)
        })
        .with_context(|| format!("a says {said:?}"))
    })?;
    Ok(())
}
