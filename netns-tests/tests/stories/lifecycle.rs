//! What the operator wants of machines: every way that there is, whether the machine can be reached or not.

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::{Backend, Outcome, tell};

#[test]
fn machines_are_activated_drained_and_parked() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = segment.running_machines(stage, 2)?;
        ensure!(machines[0].code("mesh init acme")? == "OK");
        machines[1].join(&machines[0])?;
        every_way(&machines[0])?;
        let refused = machines[1].code("machine drain m2")?;
        ensure!(
            refused == "UNSUPPORTED",
            "only where the store is: {refused}"
        );
        machines[1].kill();
        every_way(&machines[0]).context("of a machine that is switched off")
    })
}

fn every_way(founder: &Machine) -> Result<()> {
    for (command, code, from, to) in [
        ("activate m2", "OK", "active", "active"),
        ("drain --wait m2", "OK", "active", "drained"),
        ("drain m2", "OK", "drained", "drained"),
        ("activate m2", "OK", "drained", "active"),
        ("standby m2", "OK", "active", "standby"),
        ("standby --force m2", "OK", "standby", "standby"),
        ("drain m2", "INVALID_TRANSITION", "", ""),
        ("activate m2", "OK", "standby", "active"),
        ("drain m2", "OK", "active", "drained"),
        ("standby m2", "OK", "drained", "standby"),
        ("activate m2", "OK", "standby", "active"),
        ("activate nobody", "MACHINE_NOT_FOUND", "", ""),
    ] {
        let document = founder.json(&format!("machine {command}"))?;
        ensure!(text(&document, "/code") == code, "{command}: {document}");
        ensure!(
            text(&document, "/payload/from") == from,
            "{command}: {document}"
        );
        ensure!(
            text(&document, "/payload/to") == to,
            "{command}: {document}"
        );
        let repeats = text(&document, "/message").contains("already");
        ensure!(
            repeats == (code == "OK" && from == to),
            "{command}: {document}"
        );
    }
    let events = founder.json("events --limit 1")?;
    let last = events.pointer("/payload/events/0").context("an event")?;
    ensure!(
        last["operation"] == "machine-activate" && last["target"] == "nobody",
        "{last}"
    );
    Ok(())
}
