//! A disk that is full, and files that are damaged: a clear refusal or no harm, and never half of something.
//!
//! ```text
//!   m1 founds              ──┬── switch
//!   m2 joins, on a small disk┘
//! ```

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::{PATIENCE, run};
use ployz_netns_tests::netns::host;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Outcome, Stage, tell};

/// Enough for what a daemon writes when it starts.
const DISK_KIB: usize = 64;

/// What comes of it when a file is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consequence {
    /// The daemon does not start, and names the file.
    Refused,
    /// It starts, and everything works.
    Mended,
}
use Consequence::{Mended, Refused};

/// Every file but those of the store, which are nats-server's, and the lock, of which nobody reads a byte.
const FILES: [(&str, Consequence); 10] = [
    ("identity.json", Refused),
    ("network.json", Refused),
    ("ca.json", Refused),
    ("view.json", Mended),
    ("view.json.before", Mended),
    ("local.json", Mended),
    ("nats/process.json", Mended),
    ("nats/config.json", Mended),
    ("nats/key.pem", Mended),
    ("nats/certificate.pem", Mended),
];

#[test]
fn a_disk_that_is_full() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let (mut founder, mut small) = (segment.machine(stage, 1)?, segment.machine(stage, 2)?);
        founder.start(stage)?;
        ensure!(founder.code("mesh init acme")? == "OK");
        let disk = Disk::mount(small.data_dir.clone())?;
        small.start(stage)?;
        let ballast = disk.fill()?;
        refuse_to_found(&small)?;
        let token = founder.invite("")?;
        let refused = small.import(&token)?;
        names_the_file_and_leaves_nothing(&small, &refused, "view.json")?;
        fs::remove_file(&ballast)?;
        let joined = small.import(&token)?;
        ensure!(text(&joined, "/payload/status") == "joined", "{joined}");
        goes_on_without_room(stage, &disk, &founder, &mut small)
    })
}

fn refuse_to_found(small: &Machine) -> Result<()> {
    let refused = small.json("mesh init other")?;
    names_the_file_and_leaves_nothing(small, &refused, "ca.json")?;
    let addresses = small
        .netns
        .run(&format!("ip -4 address show dev {}", small.interface))?;
    ensure!(addresses.stdout.trim().is_empty(), "{}", addresses.stdout);
    Ok(())
}

fn names_the_file_and_leaves_nothing(
    machine: &Machine,
    refused: &serde_json::Value,
    file: &str,
) -> Result<()> {
    let message = text(refused, "/message");
    ensure!(
        message.contains(file) && message.contains("No space left"),
        "{refused}"
    );
    for entry in fs::read_dir(&machine.data_dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(
            ["identity.json", "local.json", "lock", "ballast"].contains(&&*name),
            "{name} was left"
        );
    }
    ensure!(machine.json("status")?["payload"]["network"].is_null());
    Ok(())
}

/// What it cannot write down it still does; and what is on the disk is whole.
fn goes_on_without_room(
    stage: &Stage,
    disk: &Disk,
    founder: &Machine,
    small: &mut Machine,
) -> Result<()> {
    small.wait_ready(PATIENCE)?;
    let ballast = disk.fill()?;
    ensure!(founder.code("machine invite create --name late")? == "OK");
    ensure!(small.reaches("10.101.0.1"));
    let _whole: serde_json::Value =
        serde_json::from_slice(&fs::read(small.data_dir.join("network.json"))?)?;
    small.kill();
    let failed = failed_start(small)?;
    ensure!(
        failed.contains("member.json") && failed.contains("No space left"),
        "{failed}"
    );
    fs::remove_file(ballast)?;
    small.start(stage)?;
    small.wait_ready(PATIENCE)
}

#[test]
fn a_file_that_is_damaged() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = segment.running_machines(stage, 2)?;
        ensure!(machines[0].code("mesh init acme")? == "OK");
        machines[1].join(&machines[0])?;
        machines[1].wait_ready(PATIENCE)?;
        let [founder, other] = &mut machines[..] else {
            anyhow::bail!("two machines");
        };
        for (file, consequence) in FILES {
            for damage in [cut as fn(&[u8]) -> Vec<u8>, overwritten] {
                damaged(stage, founder, other, file, damage, consequence)
                    .with_context(|| format!("{file} is damaged"))?;
            }
        }
        without_the_store(stage, founder, other)
    })
}

fn cut(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len() / 2].to_vec()
}

fn overwritten(bytes: &[u8]) -> Vec<u8> {
    vec![0; bytes.len()]
}

fn damaged(
    stage: &Stage,
    founder: &mut Machine,
    other: &Machine,
    file: &str,
    damage: fn(&[u8]) -> Vec<u8>,
    consequence: Consequence,
) -> Result<()> {
    let store = founder.store_pid()?;
    founder.kill();
    let path = founder.data_dir.join(file);
    let good = fs::read(&path)?;
    fs::write(&path, damage(&good))?;
    if consequence == Refused {
        let said = failed_start(founder)?;
        ensure!(said.contains(file), "it does not name the file: {said}");
        ensure!(fs::read(&path)? == damage(&good), "it has touched the file");
        fs::write(&path, good)?;
    }
    founder.start(stage)?;
    founder.wait_ready(PATIENCE)?;
    ensure!(founder.store_pid()? == store, "there is a second store");
    // The users of the store can still be changed, and the others still come in.
    let token = founder.invite("")?;
    ensure!(text(&other.import(&token)?, "/payload/status") == "had joined before");
    other.wait_ready(PATIENCE)?;
    ensure!(founder.reaches("10.101.1.1"));
    Ok(())
}

/// With no store to ask, the view before the damaged one is what the mesh forms from.
fn without_the_store(stage: &Stage, founder: &mut Machine, other: &mut Machine) -> Result<()> {
    let store = founder.store_pid()?;
    founder.kill();
    nix::sys::signal::kill(store, nix::sys::signal::Signal::SIGKILL)?;
    other.kill();
    let view = other.data_dir.join("view.json");
    ensure!(other.data_dir.join("view.json.before").exists());
    fs::write(view, "{")?;
    other.start(stage)?;
    let list = other.json("machine ls")?;
    let rows = list["payload"]["rows"].as_array().map(Vec::len);
    ensure!(rows == Some(2), "{list}");
    founder.start(stage)?;
    wait_until("m2 to reach m1", PATIENCE, || other.reaches("10.101.0.1"))
}

/// What a daemon that does not start says.
fn failed_start(machine: &Machine) -> Result<String> {
    let argv = machine.netns.argv(&machine.daemon_argv());
    let finished = run(&argv, b"", Duration::from_secs(10))?;
    ensure!(!finished.succeeded(), "it has started");
    Ok(finished.stderr)
}

/// A small disk, for as long as it is held.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Result<Self> {
        fs::create_dir(&at)?;
        host(&format!(
            "mount -t tmpfs -o size={DISK_KIB}k,mode=0700 small {}",
            at.display()
        ))?;
        Ok(Self(at))
    }

    /// Writes until there is no room for another byte.
    fn fill(&self) -> Result<PathBuf> {
        let ballast = self.0.join("ballast");
        let full = fs::write(&ballast, vec![0; DISK_KIB * 1024]);
        ensure!(full.is_err(), "there is room left");
        Ok(ballast)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the daemon on it ends after this.
        let _not_mounted = host(&format!("umount --lazy {}", self.0.display()));
    }
}
