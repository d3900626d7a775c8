//! The daemon as a service: what it tells its supervisor and its log, how it is set up, and how it stops.
//!
//! ```text
//!   m1 (two daemons) ── switch
//! ```

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use ployz_netns_tests::cluster::{Machine, Segment, neighbour, text};
use ployz_netns_tests::command::{PATIENCE, words};
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, netns, tell};
use serde_json::Value;

/// The watchdog's period; the daemon feeds it three times in each.
const WATCHDOG: Duration = Duration::from_secs(3);

/// Each part of the daemon is halted in turn by a debugger's means, and the watchdog goes hungry until it goes on.
#[test]
fn the_watchdog_is_fed_only_while_every_part_turns() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machine = segment.machine(stage, 1)?;
        let place = stage.place("notify");
        let supervisor = UnixDatagram::bind(&place)?;
        supervisor.set_read_timeout(Some(WATCHDOG))?;
        machine.prefix = supervised(&place);
        machine.start(stage)?;
        ensure!(told(&supervisor)? == "READY=1");
        ensure!(machine.code("mesh init acme")? == "OK");
        for thread in ["ployz-data-0", "ployzd"] {
            is_fed(&supervisor)?;
            let halted = Halted::new(thread_of(machine.pid()?, thread)?)?;
            goes_hungry(&supervisor).with_context(|| thread.to_owned())?;
            halted.resume()?;
        }
        is_fed(&supervisor)?;
        let asked = now();
        machine.stop()?;
        ensure!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        wait_until("it to say that it stops", PATIENCE, || {
            told(&supervisor).is_ok_and(|word| word == "STOPPING=1")
        })
    })
}

/// A shell that says whose watchdog it is, and becomes that process.
fn supervised(place: &Path) -> Vec<String> {
    let mut prefix = words(&format!(
        "env NOTIFY_SOCKET={} WATCHDOG_USEC={} sh -c",
        place.display(),
        WATCHDOG.as_micros()
    ));
    prefix.extend(["WATCHDOG_PID=$$ exec \"$@\"", "sh"].map(str::to_owned));
    prefix
}

/// The next word, unless it is about descriptors, which this supervisor does not keep.
fn told(supervisor: &UnixDatagram) -> Result<String> {
    loop {
        let mut buffer = [0; 128];
        let len = supervisor.recv(&mut buffer)?;
        let word = String::from_utf8_lossy(&buffer[..len]).trim().to_owned();
        if !word.starts_with("FDSTORE") {
            return Ok(word);
        }
    }
}

fn is_fed(supervisor: &UnixDatagram) -> Result<()> {
    for _ in 0..3 {
        let word = told(supervisor).context("the watchdog was not fed in time")?;
        ensure!(word == "WATCHDOG=1", "{word}");
    }
    Ok(())
}

/// What was said before does not count; after that there is silence for a whole period.
fn goes_hungry(supervisor: &UnixDatagram) -> Result<()> {
    supervisor.set_nonblocking(true)?;
    while told(supervisor).is_ok() {}
    supervisor.set_nonblocking(false)?;
    // A round that had begun may end.
    let _last = told(supervisor);
    ensure!(told(supervisor).is_err(), "it was fed all the same");
    Ok(())
}

fn thread_of(pid: Pid, name: &str) -> Result<Pid> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        if fs::read_to_string(path.join("comm"))?.trim() == name {
            let id = path.file_name().context("a thread's number")?;
            return Ok(Pid::from_raw(id.to_string_lossy().parse()?));
        }
    }
    anyhow::bail!("no thread {name}")
}

/// One thread of another process, which stands still.
struct Halted(Pid);

impl Halted {
    fn new(thread: Pid) -> Result<Self> {
        ptrace::seize(thread, ptrace::Options::empty())?;
        ptrace::interrupt(thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        Ok(Self(thread))
    }

    fn resume(self) -> Result<()> {
        Ok(ptrace::detach(self.0, None)?)
    }
}

#[test]
fn settings_come_from_a_file_and_two_daemons_share_a_host() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut first = segment.machine(stage, 1)?;
        refuse_what_is_no_setting(stage, &mut first)?;
        let settings =
            "io_backend = \"epoll\"\nshards = 2\nlog_format = \"json\"\nruntime = \"host\"";
        let file = stage.file("config.toml", settings)?;
        first.flags = words(&format!("--config {}", file.display()));
        first.start(stage)?;
        let status = first.json("status")?;
        let details = &status["payload"]["data_plane"]["details"];
        ensure!(text(details, "/backend") == "epoll" && text(details, "/shards") == "2");
        ensure!(text(&status, "/payload/runtime") == "host", "{status}");
        for line in first.logged().lines() {
            let event: Value = serde_json::from_str(line).context("a line of the log is JSON")?;
            ensure!(event["level"].is_string(), "{event}");
        }
        share_the_host(stage, &first)
    })
}

fn refuse_what_is_no_setting(stage: &Stage, machine: &mut Machine) -> Result<()> {
    for (text, named) in [
        ("wg_prot = 1", "wg_prot"),
        ("mtu = 1", "mtu is 1"),
        ("service_mode = \"user\"", "service mode user"),
    ] {
        let file = stage.file("config.toml", text)?;
        machine.flags = words(&format!("--config {}", file.display()));
        ensure!(machine.start(stage).is_err(), "{text}");
        ensure!(machine.logged().contains(named), "{}", machine.logged());
    }
    machine.prefix = words("env PLOYZD_WG_PROT=1");
    machine.flags.clear();
    ensure!(machine.start(stage).is_err());
    ensure!(machine.logged().contains("PLOYZD_WG_PROT"));
    machine.prefix.clear();
    Ok(())
}

/// Two networks on one host, and no third daemon on what belongs to the first.
fn share_the_host(stage: &Stage, first: &Machine) -> Result<()> {
    let mut second = neighbour(stage, first, 1);
    second.start(stage)?;
    ensure!(first.code("mesh init blue")? == "OK");
    ensure!(second.code("mesh init green --cluster-cidr 10.102.0.0/16")? == "OK");
    for machine in [first, &second] {
        ensure!(machine.ctl("mesh ready")?.succeeded(), "{}", machine.name);
    }
    ensure!(first.store_pid()? != second.store_pid()?);
    let mut third = neighbour(stage, first, 2);
    third.data_dir.clone_from(&first.data_dir);
    ensure!(third.start(stage).is_err());
    ensure!(third.logged().contains("is in use"), "{}", third.logged());
    second.stop()?;
    ensure!(
        first.ctl("mesh ready")?.succeeded(),
        "the other has stopped"
    );
    Ok(())
}

/// A real journald, in the daemon's own mount namespace: stderr leads elsewhere, so it is asked for by name.
#[test]
fn the_journal_gets_fields() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machine = segment.machine(stage, 1)?;
        machine.flags = words("--log-format journald");
        ensure!(machine.start(stage).is_err());
        ensure!(machine.logged().contains("there is no journald here"));
        let journal = stage.place("journal");
        fs::create_dir(&journal)?;
        machine.prefix = with_journald(&journal);
        machine.start(stage)?;
        let line = format!(
            "journalctl --no-pager --output json --directory {}/journal SYSLOG_IDENTIFIER=ployzd",
            journal.display()
        );
        let mut ready = None;
        wait_until("the journal to have it", PATIENCE, || {
            let shown = netns::host(&line).map(|shown| shown.stdout);
            let events = shown.unwrap_or_default();
            let mut events = events
                .lines()
                .filter_map(|it| serde_json::from_str(it).ok());
            ready = events.find(|it: &Value| it["MESSAGE"] == "ready");
            ready.is_some()
        })?;
        let ready = ready.context("an event")?;
        ensure!(ready["F_BACKEND"] == "io_uring", "{ready}");
        ensure!(ready["PRIORITY"] == "5", "{ready}");
        ensure!(machine.logged().is_empty(), "{}", machine.logged());
        Ok(())
    })
}

/// `ip netns exec` has mounted another /sys, and journald asks for the control groups in it.
fn with_journald(journal: &Path) -> Vec<String> {
    let script = format!(
        "journald() {{ /lib/systemd/systemd-journald 2>/dev/null >&2 & }}
         mkdir -p /run/systemd /run/log && mount -t tmpfs tmpfs /run/systemd && mount --bind {} /run/log &&
         mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit
         journald
         until [ -S /run/systemd/journal/socket ] && echo MESSAGE=here | logger --journald 2>/dev/null; do
           kill -0 $! 2>/dev/null || journald
         done
         exec \"$@\"",
        journal.display()
    );
    ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}
