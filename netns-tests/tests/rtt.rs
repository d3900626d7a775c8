//! The round trip that is reported, beside the truth.
//!
//! ```text
//!   a ====== a way of known length ====== b      a relay on b's host, see `known_way.rs`
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::known_way::{Fate, KnownWay};
use ployz_netns_tests::pair::{Family, RttReport};
use ployz_netns_tests::traffic::{self, Iperf};
use ployz_netns_tests::wait::{wait_for, wait_until};
use ployz_netns_tests::{Contender, Pair, Plan, Stage, story};

/// A test or a reply: IPv6 and UDP header, 44 bytes, two TLVs, and what the tunnel adds.
const PROBE_DATAGRAM_LEN: usize = 40 + 8 + 44 + 8 + 20 + 32;
/// Four hops between stamps, each through the queue of a processor that others use as well; on a quiet machine it is a few
/// microseconds (`docs/rtt.md`). What the daemons themselves take is more than this.
const ERROR_MAX: Duration = Duration::from_micros(200);
/// A second, a test, a burst of twenty at ticks of 100 ms, and as long again.
const PATIENCE: Duration = Duration::from_secs(6);

mod truth {
    use super::*;
    story!(the_network_is_as_far_as_it_is);
}

mod loss {
    use super::*;
    story!(losses_are_told_apart);
}

mod stock {
    use super::*;
    story!(a_stock_peer_is_unmeasured);
}

fn the_network_is_as_far_as_it_is(stage: &Stage) -> Result<()> {
    for hold_us in [0, 100, 1_000, 20_000] {
        let hold = Duration::from_micros(hold_us);
        let (pair, way) = meet(stage, Box::new(move |_, _| Fate::Passed { after: hold }))?;
        let report = measured(&pair, 15)?;
        let truth = way.kept().round_trip();
        account(&format!(
            "held {hold:?} each way: {truth:?} in truth, {report:?}"
        ));
        ensure!(
            truth >= hold * 2,
            "the way is shorter than it should be: {truth:?}"
        );
        ensure!(report.stamps == "kernel", "{report:?}");
        ensure!(
            report.p50.abs_diff(truth) <= ERROR_MAX,
            "{report:?}, in truth {truth:?}"
        );
    }
    Ok(())
}

fn losses_are_told_apart(stage: &Stage) -> Result<()> {
    // Tests and replies take turns: an odd number meets both.
    let mut count = 0;
    let lose_every_fifth_of_the_clients = move |from_client: bool, length: usize| {
        count += u32::from(from_client && length == PROBE_DATAGRAM_LEN);
        if from_client && length == PROBE_DATAGRAM_LEN && count % 5 == 0 {
            return Fate::Lost;
        }
        Fate::Passed {
            after: Duration::ZERO,
        }
    };
    let (pair, _way) = meet(stage, Box::new(lose_every_fifth_of_the_clients))?;
    let report = wait_for("a burst with losses", PATIENCE, || {
        pair.a.rtt().filter(|rtt| rtt.counts.sent >= 20)
    })?;
    ensure!(report.counts.lost_forward > 0, "{report:?}");
    ensure!(
        report.counts.lost_reverse == 0,
        "nothing of the server's was lost: {report:?}"
    );
    let other = pair.b.rtt().context("b measures as well")?;
    ensure!(
        other.counts.lost_forward == 0,
        "nothing of the server's was lost: {other:?}"
    );
    ensure!(other.counts.lost_reverse > 0, "{other:?}");
    Ok(())
}

fn a_stock_peer_is_unmeasured(stage: &Stage) -> Result<()> {
    let plan = Plan {
        b: Contender::WireguardGo,
        ..Plan::of(stage)
    };
    let pair = Pair::new(stage, plan)?;
    traffic::ping(&pair.a.netns, pair.b.inner(Family::V4))?;
    wait_until("two tests", PATIENCE, || {
        pair.a.rtt().is_some_and(|rtt| rtt.counts.sent >= 2)
    })?;
    let report = pair.a.rtt().context("a report")?;
    ensure!(
        (
            report.samples,
            report.counts.lost_forward,
            report.counts.lost_reverse
        ) == (0, 0, 0),
        "{report:?}"
    );
    Iperf::tcp(&pair.a, &pair.b, Family::V4, 1).run()?;
    Ok(())
}

/// For whoever runs the story with `--nocapture`.
#[expect(clippy::print_stdout, reason = "a figure is worth more than a verdict")]
fn account(text: &str) {
    println!("{text}");
}

/// Waits for a burst that went well.
fn measured(pair: &Pair, samples: usize) -> Result<RttReport> {
    wait_for("a burst to be measured", PATIENCE, || {
        pair.a.rtt().filter(|rtt| rtt.samples >= samples)
    })
    .with_context(|| format!("a says {:?}", pair.a.rtt()))
}

/// A pair that knows each other through the way.
fn meet(
    stage: &Stage,
    judge: Box<ployz_netns_tests::known_way::Judge>,
) -> Result<(Pair, KnownWay)> {
    let pair = Pair::strangers(stage, Plan::of(stage))?;
    let Pair { a, b } = &pair;
    let (address, server) = (b.outer(Family::V4), b.endpoint(Family::V4));
    let way = KnownWay::start(&b.netns, address, server, PROBE_DATAGRAM_LEN, judge)?;
    b.know(a, "")?;
    a.know(b, &format!("endpoint {}", way.address))?;
    traffic::ping(&a.netns, b.inner(Family::V4))?;
    Ok((pair, way))
}
