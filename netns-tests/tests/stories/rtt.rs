//! The round trip that is reported, beside the truth (`rtt_pair.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ployz_netns_tests::cluster::freeze;
use ployz_netns_tests::delay_link::{Fate, Judge, held};
use ployz_netns_tests::pair::{Family, RttCounts};
use ployz_netns_tests::rtt_pair::{Measured, RttPair, TEST_LEN};
use ployz_netns_tests::traffic::{self, Iperf};
use ployz_netns_tests::wait::{pause, wait_until};
use ployz_netns_tests::{Contender, Pair, Plan, Stage, story};

/// Four hops between stamps, each through the queue of a processor that others use as well; on a quiet machine it is a
/// few microseconds (`docs/rtt.md`). What the daemons themselves take is more than this.
const ERROR_MAX: Duration = Duration::from_micros(100);
/// While both processors are busy with TCP, of which a processor's turn is the tenth part of a millisecond.
const LOADED_ERROR_MAX: Duration = Duration::from_micros(500);
/// As many as are in a report.
const COUNT: u16 = 256;
const PATIENCE: Duration = Duration::from_secs(6);

mod truth {
    use super::*;
    story!(the_network_is_as_far_as_it_is);
}

mod load {
    use super::*;
    story!(it_is_as_far_under_load);
}

mod accounts {
    use super::*;
    story!(ten_thousand_tests_are_accounted_for);
}

mod stall {
    use super::*;
    story!(who_stands_still_is_not_far_away);
}

mod stock {
    use super::*;
    story!(a_stock_peer_is_unmeasured);
}

fn the_network_is_as_far_as_it_is(stage: &Stage) -> Result<()> {
    for (hold_us, jitter_us) in [
        (0, 0),
        (100, 0),
        (1_000, 0),
        (20_000, 0),
        (100, 100),
        (1_000, 1_000),
    ] {
        let hold = Duration::from_micros(hold_us);
        let met = RttPair::meet(stage, held(hold, Duration::from_micros(jitter_us)))?;
        let measured = met.measure(COUNT)?;
        account(&format!(
            "held {hold:?} each way and up to {jitter_us} us more: {measured:?}"
        ));
        ensure!(
            measured.truth >= hold * 2,
            "the link is shorter than it should be: {measured:?}"
        );
        is_true(&measured, ERROR_MAX)?;
        ensure!(
            measured.report.tunnel_p50 > measured.report.p50,
            "{measured:?}"
        );
    }
    Ok(())
}

fn it_is_as_far_under_load(stage: &Stage) -> Result<()> {
    let met = RttPair::meet(stage, held(Duration::from_millis(1), Duration::ZERO))?;
    let Pair { a, b } = &met.pair;
    let mut measured = None;
    let load = Iperf::tcp(a, b, Family::V4, 4).run_during(|| {
        measured = Some(met.measure(COUNT)?);
        Ok(())
    })?;
    let measured = measured.context("it was measured")?;
    account(&format!("while TCP has {load}: {measured:?}"));
    is_true(&measured, LOADED_ERROR_MAX)
}

/// The relay loses, holds up and repeats tests, and then replies; what it did is what `a` says.
fn ten_thousand_tests_are_accounted_for(stage: &Stage) -> Result<()> {
    let (forward, reverse) = (
        Arc::new(AtomicBool::default()),
        Arc::new(AtomicBool::default()),
    );
    let met = RttPair::meet(stage, faulty(&forward, &reverse))?;
    met.link.forget();
    let before = met.pair.a.rtt().context("a measures")?.counts;
    for way in [&forward, &reverse] {
        way.store(true, Ordering::Relaxed);
        met.test(5_000)?;
        way.store(false, Ordering::Relaxed);
    }
    // On which way the last ones were lost, a later one tells.
    let after = met.test(2)?.counts;
    let kept = met.link.kept();
    let (there, back) = (&kept.from_client, &kept.from_server);
    account(&format!(
        "there {:?}, back {:?}: {after:?}, before {before:?}",
        (there.came, there.lost, there.overtaken, there.repeated),
        (back.came, back.lost, back.overtaken, back.repeated),
    ));
    let expected = RttCounts {
        sent: before.sent + there.came,
        answered: before.answered + there.came - there.lost - back.lost,
        lost_forward: there.lost,
        lost_reverse: back.lost,
        reordered_forward: there.overtaken,
        reordered_reverse: back.overtaken,
        ..before
    };
    ensure!(there.lost > 50 && back.lost > 50, "{kept:?}");
    ensure!(there.overtaken > 50 && back.overtaken > 50, "{kept:?}");
    ensure!(after == expected, "{after:?}, but {expected:?}");
    // What comes again is a replay to WireGuard, and counts nowhere else.
    for (host, repeated) in [(&met.pair.b, there.repeated), (&met.pair.a, back.repeated)] {
        let status = host.daemon.uapi().status()?;
        let replays: u64 = status["drop_replay"].parse()?;
        ensure!(
            repeated > 50 && replays == repeated,
            "{replays} of {repeated}"
        );
    }
    Ok(())
}

/// Two processes that do not run for 200 ms, one after the other.
fn who_stands_still_is_not_far_away(stage: &Stage) -> Result<()> {
    const STALL: Duration = Duration::from_millis(200);
    let met = RttPair::meet(stage, held(Duration::from_millis(1), Duration::ZERO))?;
    let Pair { a, b } = &met.pair;
    for host in [b, a] {
        let before = a.rtt().context("a measures")?.counts;
        a.measure(COUNT)?;
        wait_until("half of the tests", PATIENCE, || {
            a.rtt()
                .is_some_and(|rtt| rtt.counts.sent >= before.sent + u64::from(COUNT) / 2)
        })?;
        let pid = Pid::from_raw(host.daemon.pid().try_into()?);
        freeze(pid)?;
        pause(STALL);
        kill(pid, Signal::SIGCONT)?;
        wait_until("the tests to be over", PATIENCE, || {
            a.rtt().is_some_and(|rtt| rtt.counts.under_way == 0)
        })?;
        let report = a.rtt().context("a measures")?;
        account(&format!(
            "{} stood still: {report:?}",
            host.daemon.interface()
        ));
        ensure!(report.counts.stalls > before.stalls, "{report:?}");
        ensure!(
            report.counts.late == 0 && report.counts.lost_forward == 0,
            "{report:?}"
        );
        ensure!(report.stamps == "kernel", "{report:?}");
        ensure!(report.p99 < STALL / 4, "{report:?}");
    }
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
    let RttCounts {
        lost_forward,
        lost_reverse,
        ..
    } = report.counts;
    ensure!(
        (report.samples, lost_forward, lost_reverse) == (0, 0, 0),
        "{report:?}"
    );
    Iperf::tcp(&pair.a, &pair.b, Family::V4, 1).run()?;
    Ok(())
}

fn is_true(measured: &Measured, error_max: Duration) -> Result<()> {
    ensure!(measured.report.stamps == "kernel", "{measured:?}");
    let error = measured.report.p50.abs_diff(measured.truth);
    ensure!(error <= error_max, "{error:?}: {measured:?}");
    Ok(())
}

/// Of the tests, while `forward` holds, and of the replies, while `reverse` does: loses some, holds some until two
/// others have passed, and repeats some.
fn faulty(forward: &Arc<AtomicBool>, reverse: &Arc<AtomicBool>) -> Box<Judge> {
    let (forward, reverse) = (Arc::clone(forward), Arc::clone(reverse));
    let mut count = 0_u32;
    Box::new(move |from_client, length| {
        let faulty = if from_client { &forward } else { &reverse };
        let passed = |after| Fate::Passed { after };
        if length != TEST_LEN || !faulty.load(Ordering::Relaxed) {
            return passed(Duration::ZERO);
        }
        count += 1;
        match count % 50 {
            7 => Fate::Lost,
            23 => passed(Duration::from_millis(5)),
            37 => Fate::Repeated,
            _ => passed(Duration::ZERO),
        }
    })
}

/// For whoever runs the story with `--nocapture`.
#[expect(clippy::print_stdout, reason = "a figure is worth more than a verdict")]
fn account(text: &str) {
    println!("{text}");
}
