//! A tool of somebody else's, stamp-suite, measures against a machine's addresses in the overlay: a second reading of
//! RFC 8762 and RFC 8972.

use std::env;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::Value;

const COUNT: u32 = 50;

#[test]
fn stamp_suite_is_answered() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let (machines, [v4, v6]) = two(stage, &segment)?;
        let measure = |options: &str| stamp_suite(&machines[0], options);
        answered(&measure(&format!("--remote-addr {v4}"))?)?;
        answered(&measure(&format!("--remote-addr {v6} --local-addr ::"))?)?;
        answered(&measure(&format!("--remote-addr {v4} --clock-source PTP"))?)?;
        extended(&measure(&format!(
            "--remote-addr {v4} --ssid 7 --timestamp-info --follow-up-telemetry --extra-padding 300"
        ))?)?;
        for mistake in ["bad-flags", "bad-length"] {
            let options = format!("--remote-addr {v4} --malformed {mistake}");
            answered(&measure(&options)?)?;
        }
        Ok(())
    })
}

/// Two machines, and the addresses of the second.
fn two(stage: &Stage, segment: &Segment) -> Result<(Vec<Machine>, [String; 2])> {
    let machines = segment.running_machines(stage, 2)?;
    ensure!(machines[0].code("mesh init acme")? == "OK");
    machines[1].join(&machines[0])?;
    let list = machines[0].json("machine ls")?;
    let rows = list["payload"]["rows"].as_array().context("rows")?;
    let other = rows.iter().find(|row| row["name"] == "m2").context("m2")?;
    let addresses = ["/overlay_ip", "/overlay_ip6"].map(|it| text(other, it));
    for address in &addresses {
        wait_until("a way", Duration::from_secs(10), || {
            machines[0].reaches(address)
        })?;
    }
    Ok((machines, addresses))
}

fn stamp_suite(machine: &Machine, options: &str) -> Result<Value> {
    let program = env::var("STAMP_SUITE").unwrap_or_else(|_| "stamp-suite".to_owned());
    let line = format!(
        "{program} --count {COUNT} --send-delay 5 --timeout 1 --output-format json {options}"
    );
    let finished = machine.netns.run(&line)?;
    serde_json::from_str(&finished.stdout).with_context(|| finished.to_string())
}

/// Every test once, with its own number, and with times of the one clock that both have: neither way took less than
/// nothing.
fn answered(report: &Value) -> Result<()> {
    let measured = &report["measurements"];
    ensure!(measured["requested_replies"] == COUNT, "{report}");
    ensure!(report["packets_lost"] == 0, "{report}");
    for wrong in ["duplicate_replies", "unknown_replies", "reordered_replies"] {
        ensure!(measured[wrong] == 0, "{wrong}: {report}");
    }
    for way in ["forward_min_ms", "reverse_min_ms"] {
        let took_ms = report["owd"][way].as_f64();
        ensure!(
            took_ms.is_some_and(|ms| (0.0..1_000.0).contains(&ms)),
            "{way}: {report}"
        );
    }
    Ok(())
}

/// All three TLVs came back understood.
fn extended(report: &Value) -> Result<()> {
    answered(report)?;
    let validation = &report["measurements"]["tlv_validation"];
    ensure!(validation["observed_tlvs"] == 3 * COUNT, "{report}");
    ensure!(validation["rejected_replies"] == 0, "{report}");
    for flag in ["malformed", "unrecognized"] {
        ensure!(validation["flags"][flag] == 0, "{report}");
    }
    Ok(())
}
