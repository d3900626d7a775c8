//! The store is restored from a backup, with the commands of docs/operations.md.
//!
//! ```text
//!   m1 founds, m2 joins ── switch ── m3 takes m1's place
//! ```

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::netns::host;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::Value;

/// A machine lists the store anew every 20 s at the latest.
const RESYNC_WAIT: Duration = Duration::from_secs(25);

#[test]
fn a_backup_brings_back_what_was_in_it() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = segment.running_machines(stage, 2)?;
        ensure!(machines[0].code("mesh init acme")? == "OK");
        machines[1].join(&machines[0])?;
        machines[1].wait_ready(PATIENCE)?;
        ensure!(machines[0].code("machine label m2 tier=db")? == "OK");
        is_labelled(&machines[1], "db")?;
        let archive = stage.place("backup.tgz");
        back_up(&machines[0], &archive)?;
        ensure!(machines[0].code("machine label m2 tier=web")? == "OK");
        is_labelled(&machines[1], "web")?;
        let store = machines[0].store_pid()?;
        machines[0].kill();
        kill(store, Signal::SIGKILL)?;
        let mut successor = segment.machine(stage, 3)?;
        restore(stage, &mut successor, &archive)?;
        is_labelled(&machines[1], "db")?;
        ensure!(successor.code("machine label m2 tier=cache")? == "OK");
        is_labelled(&machines[1], "cache")
    })
}

/// The others' traffic goes on meanwhile, and so does their view of the network.
fn back_up(founder: &Machine, archive: &Path) -> Result<()> {
    ensure!(founder.ctl("mesh stop --force")?.succeeded());
    host(&format!(
        "tar --create --gzip --file {} --directory {} .",
        archive.display(),
        founder.data_dir.display()
    ))?;
    ensure!(founder.ctl("mesh start")?.succeeded());
    founder.wait_ready(PATIENCE)
}

/// On another host, with another address: the others' addresses are in the records.
fn restore(stage: &Stage, founder: &mut Machine, archive: &Path) -> Result<()> {
    host(&format!("mkdir --mode 700 {}", founder.data_dir.display()))?;
    host(&format!(
        "tar --extract --gzip --preserve-permissions --file {} --directory {}",
        archive.display(),
        founder.data_dir.display()
    ))?;
    founder.start(stage)?;
    ensure!(founder.ctl("mesh start")?.succeeded());
    founder.wait_ready(PATIENCE)
}

fn is_labelled(machine: &Machine, tier: &str) -> Result<()> {
    let mut seen = Value::Null;
    let heard = wait_until(
        format!("{} to see the label {tier}", machine.name),
        RESYNC_WAIT,
        || {
            seen = machine.json("machine inspect m2").unwrap_or_default();
            text(&seen, "/payload/machine/labels/tier") == tier
        },
    );
    heard.with_context(|| format!("it sees {seen}"))
}
