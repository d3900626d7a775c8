//! An operator deploys commands on the machine that holds the store. They run as users of their own: the network's
//! authority, the host and other workloads are out of their reach, unless an admin deploys them with `--privileged`.
//!
//! ```text
//!   m1 founds, and so holds the store and the CA ── the operator's context
//! ```

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::{PATIENCE, run};
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::workloads::{machines, rows, wait_state};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};
use serde_json::Value;

/// A path that a shell, systemd and a container engine could each take for something else.
const ODD_DIRECTORY: &str = r#"with blank %n $HOME "quoted" \back"#;

/// An operator, and the machine that they are at.
struct Operator<'a> {
    machine: &'a Machine,
    contexts: PathBuf,
}

impl Operator<'_> {
    /// Deploys a command with these further words; the document.
    fn deploy(&self, name: &str, command: &str, more: &[&str]) -> Result<Value> {
        let contexts = self.contexts.display();
        let line = format!("--config {contexts} --context o --json deploy service {name} --exec");
        deploy(self.machine, &line, command, more)
    }

    /// The same of a command that has to end well; what it has written.
    fn output(&self, name: &str, command: &str, more: &[&str]) -> Result<Vec<String>> {
        let placed = self.deploy(name, command, more)?;
        ensure!(text(&placed, "/code") == "OK", "{placed}");
        ended(self.machine, name)
    }
}

#[test]
fn an_operator_reaches_neither_the_authority_nor_the_host() -> Outcome {
    tell(Backend::IoUring, |stage| {
        secrets_are_out_of_reach(&operator(stage, &founder(stage)?.1)?)
    })
}

#[test]
fn a_workload_does_not_reach_another_one() -> Outcome {
    tell(Backend::IoUring, |stage| {
        another_workload_is_out_of_reach(stage, &operator(stage, &founder(stage)?.1)?)
    })
}

#[test]
fn privileges_are_an_admins_to_give() -> Outcome {
    tell(Backend::IoUring, |stage| {
        operators_give_none(&operator(stage, &founder(stage)?.1)?)
    })
}

#[test]
fn volumes_become_the_workloads_own_wherever_they_are_mounted() -> Outcome {
    tell(Backend::IoUring, |stage| {
        volumes_are_the_workloads_own(stage, &operator(stage, &founder(stage)?.1)?)
    })
}

#[test]
fn mount_points_lead_nowhere_but_where_they_say() -> Outcome {
    tell(Backend::IoUring, |stage| {
        nothing_is_made_for_them_in_the_system(stage, &operator(stage, &founder(stage)?.1)?)
    })
}

#[test]
fn an_environment_is_the_commands_only() -> Outcome {
    tell(Backend::IoUring, |stage| {
        the_launcher_has_its_own(stage, &operator(stage, &founder(stage)?.1)?)
    })
}

/// A machine that has founded a network, and the segment that it is on.
fn founder(stage: &Stage) -> Result<(Segment, Vec<Machine>)> {
    let segment = Segment::new(stage)?;
    let machines = machines(stage, &segment, 1)?;
    Ok((segment, machines))
}

fn operator<'a>(stage: &Stage, machines: &'a [Machine]) -> Result<Operator<'a>> {
    let machine = machines.first().context("a machine")?;
    let (file, contexts) = (stage.place("operator.json"), stage.place("contexts.toml"));
    let create = format!(
        "credential create --role operator --name o --output {}",
        file.display()
    );
    machine.ctl(&create)?.success()?;
    let import = format!(
        "--config {} context import {} --name o",
        contexts.display(),
        file.display()
    );
    machine.ctl(&import)?.success()?;
    Ok(Operator { machine, contexts })
}

fn secrets_are_out_of_reach(operator: &Operator<'_>) -> Result<()> {
    let data = operator.machine.data_dir.display();
    ensure!(fs::exists(operator.machine.data_dir.join("ca.json"))?);
    let planted = format!("/etc/ployz-planted-{}", std::process::id());
    let attack = format!(
        "cat {data}/ca.json {data}/identity.json {data}/*.json /etc/shadow; ls {data} /root; touch {planted}; ls -l /proc/self/fd; \
         grep -E '^(CapPrm|CapEff|CapAmb|NoNewPrivs|Groups):' /proc/self/status | tr '\\t' ' '; id -u; exit 0"
    );
    let said = operator.output("attack", &attack, &[])?;
    let all = said.join("\n");
    let has_planted = fs::remove_file(&planted).is_ok();
    ensure!(!all.contains("PRIVATE KEY"), "the authority's key was read");
    let descriptors = ["launch.json", "socket:", "anon_inode", "/dev/net/tun"];
    ensure!(!descriptors.iter().any(|it| all.contains(it)), "{all}");
    ensure!(!has_planted, "it has written to the host");
    ensure!(
        !all.contains("nkey_seed") && !said.iter().any(|line| line.starts_with("root:")),
        "{all}"
    );
    for line in [
        "CapPrm: 0000000000000000",
        "CapEff: 0000000000000000",
        "CapAmb: 0000000000000000",
        "NoNewPrivs: 1",
        "Groups:",
    ] {
        let is_it = |said: &String| said.trim_end() == line;
        ensure!(said.iter().any(is_it), "{line} is not in {all}");
    }
    ensure!(said.last().is_some_and(|uid| uid != "0"), "{all}");
    Ok(())
}

fn another_workload_is_out_of_reach(stage: &Stage, operator: &Operator<'_>) -> Result<()> {
    let (first, second) = (stage.place("first"), stage.place("second"));
    let command = format!(
        "echo s3cret > {0}/kept; echo $$ > {0}/pid; exec sleep 1000",
        first.display()
    );
    let flags = format!("data:{}", first.display());
    operator.deploy(
        "victim",
        &command,
        &["--env", "TOKEN=hushed", "--volume", &flags],
    )?;
    wait_state(operator.machine, "default/victim", "running")?;
    let volume = operator
        .machine
        .data_dir
        .join("volumes/default/victim/data");
    wait_until("the victim to have written", PATIENCE, || {
        volume.join("pid").exists()
    })?;
    let pid = fs::read_to_string(volume.join("pid"))?.trim().to_owned();
    ensure!(
        fs::read(format!("/proc/{pid}/environ"))?
            .windows(6)
            .any(|bytes| bytes == b"hushed"),
        "the victim has its environment"
    );
    let attack = format!(
        "cat {}/kept; cat /proc/{pid}/environ; cat /proc/{pid}/root{}/kept; kill {pid}; exit 0",
        volume.display(),
        first.display()
    );
    let flags = format!("data:{}", second.display());
    let all = operator
        .output("thief", &attack, &["--volume", &flags])?
        .join("\n");
    ensure!(
        !all.contains("s3cret") && !all.contains("hushed"),
        "another workload was read: {all}"
    );
    ensure!(fs::exists(format!("/proc/{pid}"))?, "it was ended: {all}");
    for name in ["victim", "thief"] {
        ensure!(operator.machine.code(&format!("workload rm {name}"))? == "OK");
    }
    Ok(())
}

fn operators_give_none(operator: &Operator<'_>) -> Result<()> {
    let machine = operator.machine;
    let refused = operator.deploy("root", "id -u", &["--privileged"])?;
    ensure!(text(&refused, "/code") == "FORBIDDEN", "{refused}");
    ensure!(
        machine.code("workload inspect root")? == "WORKLOAD_NOT_FOUND",
        "nothing is placed"
    );
    let line = "--json deploy service root --privileged --exec";
    let placed = deploy(machine, line, "id -u; exit 0", &[])?;
    ensure!(text(&placed, "/code") == "OK", "{placed}");
    ensure!(ended(machine, "root")? == ["0"]);
    let shown = machine.json("workload inspect root")?;
    ensure!(shown["payload"]["privileged"] == true, "{shown}");
    let events = machine.json("events")?.to_string();
    ensure!(
        events.contains("workload-deploy") && events.contains("privileged"),
        "{events}"
    );
    let image = machine.json("deploy service box --privileged --image box:1")?;
    ensure!(text(&image, "/code") == "INVALID_ARGUMENT", "{image}");
    Ok(())
}

/// Volumes of a version that ran commands as root, too.
fn volumes_are_the_workloads_own(stage: &Stage, operator: &Operator<'_>) -> Result<()> {
    let volume = operator.machine.data_dir.join("volumes/default/kept/data");
    fs::create_dir_all(volume.join("deep"))?;
    fs::write(volume.join("deep/file"), "old\n")?;
    let secret = stage.file("secret", "not the workload's")?;
    fs::hard_link(&secret, volume.join("elsewhere"))?;
    std::os::unix::fs::symlink(&secret, volume.join("link"))?;
    for (path, mode) in [("deep/file", 0o600), ("deep", 0o700), ("", 0o700)] {
        fs::set_permissions(volume.join(path), fs::Permissions::from_mode(mode))?;
    }
    let odd = stage.place("odd").join(ODD_DIRECTORY);
    let odd = odd.display().to_string();
    let (volume_flag, env) = (format!("data:{odd}"), format!("AT={odd}"));
    let command = r#"echo new >> "$AT/deep/file" && cat "$AT/deep/file""#;
    let flags = ["--volume", &volume_flag, "--env", &env];
    let said = operator.output("kept", command, &flags)?;
    ensure!(said == ["old", "new"], "{said:?}");
    ensure!(
        fs::metadata(&secret)?.uid() == 0,
        "a file outside of the volume was given away"
    );
    ensure!(operator.machine.code("workload rm kept")? == "OK");
    Ok(())
}

/// Root makes the mount points: an empty directory may mean something by its name, and a link in a volume leads to
/// wherever its workload has it lead.
fn nothing_is_made_for_them_in_the_system(stage: &Stage, operator: &Operator<'_>) -> Result<()> {
    let outer = stage.place("outer").display().to_string();
    let volume = format!("outer:{outer}");
    let inner = format!("inner:{outer}/deep/inner");
    let nested = format!("echo in > {outer}/deep/inner/file && ln -s /srv {outer}/link");
    let said = operator.output(
        "nested",
        &nested,
        &["--volume", &volume, "--volume", &inner],
    )?;
    ensure!(said.is_empty(), "{said:?}");
    let volumes = operator.machine.data_dir.join("volumes/default/nested");
    ensure!(fs::read_to_string(volumes.join("inner/file"))? == "in\n");
    ensure!(operator.machine.code("workload rm nested")? == "OK");

    let name = format!("ployz-planted-{}", std::process::id());
    let paths = [
        format!("/etc/{name}"),
        format!("/run/{name}"),
        format!("{outer}/link/{name}"),
    ];
    for path in &paths {
        let inner = format!("inner:{path}");
        let flags = ["--volume", &*volume, "--volume", &*inner];
        let placed = operator.deploy("nested", "exit 0", &flags)?;
        ensure!(text(&placed, "/code") == "OK", "{placed}");
        wait_state(operator.machine, "default/nested", "waiting")?;
        let logs = operator.machine.json("workload logs nested")?.to_string();
        ensure!(
            logs.contains("is missing") || logs.contains("is a link"),
            "{logs}"
        );
        ensure!(operator.machine.code("workload rm nested")? == "OK");
    }
    for directory in ["/etc", "/run", "/srv"] {
        let planted = PathBuf::from(directory).join(&name);
        ensure!(fs::remove_dir(&planted).is_err(), "{planted:?} was made");
    }
    Ok(())
}

fn the_launcher_has_its_own(stage: &Stage, operator: &Operator<'_>) -> Result<()> {
    let volume = format!("data:{}", stage.place("clean").display());
    // The loader obeys: a program that is started with it lists its libraries, and does nothing else.
    for (name, env) in [
        ("path", "PATH=/nonexistent"),
        ("loader", "LD_TRACE_LOADED_OBJECTS=1"),
    ] {
        let flags = ["--volume", &volume, "--env", env];
        operator.output(name, "exit 0", &flags)?;
    }
    Ok(())
}

/// Waits until a command has ended well; what it has written.
fn ended(machine: &Machine, name: &str) -> Result<Vec<String>> {
    wait_state(machine, &format!("default/{name}"), "exited").with_context(|| {
        let logs = machine.json(&format!("workload logs {name}"));
        format!("{:?}, {:?}", rows(machine, ""), logs.ok())
    })?;
    let logs = machine.json(&format!("workload logs {name}"))?;
    let lines = logs["payload"]["lines"].as_array().context("lines")?;
    let lines = lines.iter().filter_map(|line| line.as_str());
    Ok(lines.map(str::to_owned).collect())
}

/// Runs a line of `ployzctl` that a command and further words complete; the document.
fn deploy(machine: &Machine, line: &str, command: &str, more: &[&str]) -> Result<Value> {
    let mut argv = machine.ctl_argv(line);
    argv.push(command.to_owned());
    argv.extend(more.iter().map(|word| (*word).to_owned()));
    let finished = run(&argv, b"", PATIENCE)?;
    serde_json::from_str(&finished.stdout).with_context(|| finished.to_string())
}
