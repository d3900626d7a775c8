//! What every command says, to people, to scripts and to programs, and how it ends.
//!
//! ```text
//!   m1 founds ──┐
//!               ├── switch      m3 has no daemon
//!   m2 joins  ──┘
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use ployz_netns_tests::cluster::{Machine, Segment, freeze, text};
use ployz_netns_tests::command::{PATIENCE, run};
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::Value;

const SOMETHING_ELSE: &str = "01JX3Z5E9V5R2K7Q8W4N6T1M0B";

#[test]
fn every_command_in_every_mode() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 2)?;
        let outside = segment.machine(stage, 3)?;
        ensure!(machines[0].code("mesh init acme")? == "OK");
        machines[1].join(&machines[0])?;
        let founder = &machines[0];
        wait_until("m1 to be well", PATIENCE, || {
            founder.ctl("doctor").is_ok_and(|it| it.succeeded())
        })?;
        what_succeeds(stage, founder)?;
        what_fails(founder, &outside)?;
        tables_fit(founder)?;
        watched(stage, founder)?;
        what_takes_its_time(founder)?;
        completed(founder, &outside)
    })
}

fn what_succeeds(stage: &Stage, founder: &Machine) -> Result<()> {
    let manual = stage.place("manual");
    fs::create_dir_all(&manual)?;
    let man = format!("man --output {}", manual.display());
    for (command, kind) in [
        ("status", "status"),
        ("mesh ready", "mesh-ready"),
        ("network ready", "mesh-ready"),
        ("mesh list", "mesh-list"),
        ("mesh status", "mesh-status"),
        ("mesh self-record", "mesh-self-record"),
        ("machine label m2 tier=web", "machine-record"),
        ("mesh init acme", "mesh-init"),
        ("machine ls", "machine-list"),
        ("machine list --wide", "machine-list"),
        ("machine inspect m2", "machine-inspect"),
        ("machine invite create --ttl-secs 60", "invite"),
        ("machine invite list --all", "invite-list"),
        ("credential create --role reader --ttl 1h", "credential"),
        ("credential list", "credential-list"),
        ("context ls", "context-list"),
        ("doctor", "doctor"),
        ("events --limit 5", "event-list"),
        ("--on m2 status", "status"),
        ("completion bash", "completion"),
        (&man, "man"),
    ] {
        every_mode(founder, command, kind).with_context(|| command.to_owned())?;
    }
    ensure!(manual.join("ployzctl-machine-ls.1").exists(), "{manual:?}");
    Ok(())
}

fn every_mode(machine: &Machine, command: &str, kind: &str) -> Result<()> {
    for flags in ["--json", "--json -q", "--json --timeout 30s --no-progress"] {
        let finished = machine.ctl(&format!("{flags} {command}"))?;
        let document = one_document(&finished.stdout)?;
        ensure!(
            document["ok"] == true && document["code"] == "OK",
            "{finished}"
        );
        ensure!(text(&document, "/payload/kind") == kind, "{finished}");
        ensure!(
            finished.status.code() == Some(0) && finished.stderr.is_empty(),
            "{finished}"
        );
    }
    let plain = machine.ctl(&format!("{command} --plain"))?;
    ensure!(
        plain.succeeded() && plain.stdout.lines().all(is_record),
        "{plain}"
    );
    let people = machine.ctl(command)?;
    ensure!(
        people.succeeded() && !people.stdout.trim().is_empty(),
        "{people}"
    );
    let quiet = machine.ctl(&format!("-q {command}"))?;
    ensure!(quiet.succeeded() && quiet.stdout.is_empty(), "{quiet}");
    Ok(())
}

fn one_document(stdout: &str) -> Result<Value> {
    serde_json::from_str(stdout).with_context(|| stdout.to_owned())
}

/// Words of `key=value`; a value with spaces is a JSON text.
fn is_record(line: &str) -> bool {
    let mut rest = line;
    while !rest.is_empty() {
        let Some((key, value)) = rest.split_once('=') else {
            return false;
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            return false;
        }
        let is_json = value.starts_with(['"', '[', '{']);
        rest = if is_json {
            let mut values = serde_json::Deserializer::from_str(value).into_iter::<Value>();
            match values.next() {
                Some(Ok(_)) => value[values.byte_offset()..].trim_start(),
                Some(Err(_)) | None => return false,
            }
        } else {
            value.split_once(' ').map_or("", |(_, rest)| rest)
        };
    }
    true
}

/// Exit 1: refused or failed; 2: usage; 3: nobody there. The code is in every mode.
fn what_fails(founder: &Machine, outside: &Machine) -> Result<()> {
    let revoke = format!("machine invite revoke {SOMETHING_ELSE}");
    for (machine, command, code, status) in [
        (founder, "machine inspect nobody", "MACHINE_NOT_FOUND", 1),
        (founder, "machine inspect m", "MACHINE_AMBIGUOUS", 1),
        (founder, "doctor nobody", "MACHINE_NOT_FOUND", 1),
        (founder, "mesh init other", "NETWORK_ALREADY_RUNNING", 1),
        (
            founder,
            "machine invite import --token x",
            "INVITE_INVALID",
            1,
        ),
        (founder, &revoke, "INVITE_INVALID", 1),
        (founder, "status --nonsense", "INVALID_ARGUMENT", 2),
        (founder, "nonsense", "INVALID_ARGUMENT", 2),
        (founder, "machine ls --timeout 5", "INVALID_ARGUMENT", 2),
        (founder, "--context nobody status", "INVALID_ARGUMENT", 2),
        (
            founder,
            "credential create --role machine",
            "INVALID_ARGUMENT",
            2,
        ),
        (founder, "events --limit 9999", "INVALID_ARGUMENT", 2),
        (outside, "machine ls", "DAEMON_UNREACHABLE", 3),
        (outside, "doctor", "DAEMON_UNREACHABLE", 3),
        (outside, "events --follow", "DAEMON_UNREACHABLE", 3),
        (outside, "machine ls --watch", "DAEMON_UNREACHABLE", 3),
    ] {
        let finished = machine.ctl(&format!("--json {command}"))?;
        let document = one_document(&finished.stdout)?;
        ensure!(
            document["ok"] == false && text(&document, "/code") == code,
            "{finished}"
        );
        ensure!(!text(&document, "/message").is_empty(), "{finished}");
        ensure!(finished.status.code() == Some(status), "{finished}");
        for flags in ["", "--plain", "-q"] {
            let finished = machine.ctl(&format!("{command} {flags}"))?;
            ensure!(finished.status.code() == Some(status), "{finished}");
            ensure!(finished.stdout.is_empty(), "{finished}");
            ensure!(finished.stderr.starts_with("error"), "{finished}");
        }
    }
    let both = founder.ctl("--json --plain status")?;
    ensure!(both.status.code() == Some(2), "{both}");
    Ok(())
}

/// On a terminal, which `script` makes.
fn tables_fit(machine: &Machine) -> Result<()> {
    let whole = machine.ctl("machine ls --wide")?;
    let widest = |text: &str| {
        text.lines()
            .map(|line| line.trim_end().chars().count())
            .max()
    };
    ensure!(
        widest(&whole.stdout) > Some(120),
        "a pipe has no width: {whole}"
    );
    for columns in [40, 80, 120] {
        let shown = on_terminal(machine, columns, "machine ls --wide")?;
        ensure!(widest(&shown) <= Some(columns), "{columns}: {shown}");
        ensure!(shown.contains("NAME"), "{shown}");
    }
    let coloured = on_terminal(machine, 80, "machine inspect nobody")?;
    ensure!(coloured.contains("\x1b[1;31merror"), "{coloured:?}");
    let plain = on_terminal_with(machine, "NO_COLOR=1", 80, "machine inspect nobody")?;
    ensure!(
        plain.contains("error") && !plain.contains('\x1b'),
        "{plain:?}"
    );
    Ok(())
}

fn on_terminal(machine: &Machine, columns: usize, command: &str) -> Result<String> {
    on_terminal_with(machine, "TERM=xterm", columns, command)
}

fn on_terminal_with(
    machine: &Machine,
    setting: &str,
    columns: usize,
    command: &str,
) -> Result<String> {
    let line = format!(
        "stty rows 24 cols {columns}; TERM=xterm {setting} {}",
        machine.ctl_argv(command).join(" ")
    );
    let argv = ["script", "-qec", &line, "/dev/null"].map(str::to_owned);
    Ok(run(&argv, b"", PATIENCE)?.stdout)
}

fn watched(stage: &Stage, machine: &Machine) -> Result<()> {
    let said = stage.place("said");
    let watching = machine.ctl_going_on("--json machine ls --watch --wide", &said)?;
    wait_until("two lists", PATIENCE, || lines(&said).len() >= 2)?;
    for line in lines(&said) {
        let document = one_document(&line)?;
        ensure!(text(&document, "/payload/kind") == "machine-list", "{line}");
    }
    watching.interrupt()
}

fn lines(said: &Path) -> Vec<String> {
    let text = fs::read_to_string(said).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

/// A store that hangs: somebody at a terminal is told that they wait, unless they do not want to be.
fn what_takes_its_time(founder: &Machine) -> Result<()> {
    let store = founder.store_pid()?;
    freeze(store)?;
    // In this order: after 8 s it is known to be gone, and nothing takes its time any more.
    let brief = founder.ctl("machine invite list --timeout 500ms");
    let told = on_terminal(founder, 80, "machine invite list");
    let untold = on_terminal(founder, 80, "machine invite list --no-progress");
    kill(store, Signal::SIGCONT)?;
    let (told, untold, brief) = (told?, untold?, brief?);
    ensure!(told.contains("waiting for the daemon"), "{told}");
    ensure!(untold.contains("STORE_UNAVAILABLE"), "{untold}");
    ensure!(!untold.contains("waiting"), "{untold}");
    ensure!(brief.stderr.starts_with("error [TIMEOUT]"), "{brief}");
    ensure!(brief.status.code() == Some(1), "{brief}");
    let verbose = founder.ctl("-v machine ls")?;
    ensure!(verbose.stderr.contains("asking [127.0.0.1:"), "{verbose}");
    Ok(())
}

/// A shell asks the program itself, which asks the daemon.
fn completed(founder: &Machine, outside: &Machine) -> Result<()> {
    let offered = |machine: &Machine, word: &str| -> Result<Vec<String>> {
        let mut argv = machine.ctl_argv(&format!("machine inspect {word}"));
        let program = argv
            .iter()
            .position(|it| it.ends_with("ployzctl"))
            .context("the program")?;
        let last = argv.len() - program - 1;
        // What the script of `completion bash` runs for a line: the program, and after `--` the line.
        argv.splice(
            program + 1..program + 1,
            ["--", "ployzctl"].map(str::to_owned),
        );
        let environment = [
            "env",
            "PLOYZCTL_COMPLETE=bash",
            "_CLAP_IFS=\n",
            &format!("_CLAP_COMPLETE_INDEX={last}"),
            "_CLAP_COMPLETE_COMP_TYPE=9",
            "_CLAP_COMPLETE_SPACE=true",
        ]
        .map(str::to_owned);
        let finished = run(&[&environment[..], &argv].concat(), b"", PATIENCE)?;
        Ok(finished.stdout.lines().map(str::to_owned).collect())
    };
    ensure!(
        offered(founder, "m")? == ["m1", "m2"],
        "{:?}",
        offered(founder, "m")?
    );
    ensure!(offered(founder, "m2")? == ["m2"]);
    ensure!(offered(outside, "m")?.is_empty(), "nobody to ask");
    let script = founder.ctl("completion bash")?;
    ensure!(script.stdout.contains("PLOYZCTL_COMPLETE"), "{script}");
    let manual = founder.ctl("man")?;
    ensure!(manual.stdout.contains(".TH ployzctl 1"), "{manual}");
    Ok(())
}
