//! Machines are removed with their own help: what each does itself, who may ask it to, and what happens when it does
//! not answer.
//!
//! ```text
//!   m1 founds, m2 and m3 join ── switch
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_api::{Code, Request};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::{PATIENCE, run, words};
use ployz_netns_tests::machine_client::ask_as;
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, netns, tell};

/// What is granted until a machine that was removed is nobody's peer.
const FORGET_WAIT: Duration = Duration::from_secs(2);

#[test]
fn a_machine_cleans_up_before_it_is_forgotten() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = (1..=3)
            .map(|number| segment.machine(stage, number))
            .collect::<Result<Vec<_>>>()?;
        for machine in &mut machines {
            machine.flags = words("--runtime host");
            machine.start(stage)?;
        }
        let [founder, second, third] = &mut machines[..] else {
            anyhow::bail!("three machines");
        };
        ensure!(founder.code("mesh init acme")? == "OK");
        for machine in [&*second, &*third] {
            machine.join(founder)?;
            machine.wait_ready(PATIENCE)?;
        }
        wait_until("m2 and m3 to have a session", PATIENCE, || {
            second.reaches("10.101.2.1")
        })?;
        nobody_else_may_ask(second, third)?;
        let process = a_workload(founder, "m2")?;
        a_step_that_fails_keeps_it(founder, second)?;
        it_leaves_by_itself(founder, second, third)?;
        it_holds_nothing(founder, &process)?;
        it_comes_back_as_if_it_had_not_been(stage, founder, second)?;
        the_founder_is_not_removed_from_afar(stage, founder, second)?;
        it_hears_that_it_was_removed(founder, second)?;
        silence_is_no_consent(stage, founder, third)
    })
}

/// A machine that does not hold the store has no say over another one.
fn nobody_else_may_ask(second: &Machine, third: &Machine) -> Outcome {
    let answer = ask_as(
        third,
        [10, 0, 0, 2],
        &Request::MachineRetire { decision: None },
    )?;
    ensure!(answer.code == Code::Forbidden, "{answer:?}");
    ensure!(second.code("mesh ready")? == "OK");
    Ok(())
}

/// One that says which process it is; that process.
fn a_workload(founder: &Machine, machine: &str) -> Result<PathBuf> {
    let line = format!("--json deploy service web --machine {machine} --exec");
    let mut argv = founder.ctl_argv(&line);
    argv.push("echo $$; exec sleep 1000".to_owned());
    run(&argv, b"", PATIENCE)?.success()?;
    let mut pid = String::new();
    wait_until("the workload to run", PATIENCE, || {
        let logs = founder.json("workload logs web").unwrap_or_default();
        pid = text(&logs, "/payload/lines/0");
        !pid.is_empty()
    })?;
    let process = Path::new("/proc").join(pid);
    ensure!(process.exists());
    Ok(process)
}

/// A member it is by a file, which cannot be deleted here.
fn a_step_that_fails_keeps_it(founder: &Machine, second: &Machine) -> Outcome {
    let file = second.data_dir.join("network.json");
    netns::host(&format!("chattr +i {}", file.display()))?;
    let refused = founder.json("machine rm m2 --yes");
    netns::host(&format!("chattr -i {}", file.display()))?;
    let refused = refused?;
    ensure!(refused["ok"] == false, "{refused}");
    let message = text(&refused, "/message");
    ensure!(
        message.contains("workloads done: 1 stopped; mesh failed"),
        "{refused}"
    );
    ensure!(text(&refused, "/hint").contains("--force"), "{refused}");
    ensure!(
        founder.code("machine inspect m2")? == "OK",
        "its record stays"
    );
    ensure!(second.code("mesh ready")? == "OK");
    wait_until("the workload to run again", PATIENCE, || {
        let listed = founder.json("workload ls").unwrap_or_default();
        text(&listed, "/payload/rows/0/state") == "running"
    })
}

/// Its workload has ended, and another machine can have one of that name.
fn it_holds_nothing(founder: &Machine, process: &Path) -> Outcome {
    ensure!(!process.exists(), "the workload runs on");
    let listed = founder.json("workload ls")?;
    ensure!(
        listed["payload"]["rows"] == serde_json::json!([]),
        "{listed}"
    );
    a_workload(founder, "m1")?;
    founder.ctl("workload rm web")?.success()?;
    Ok(())
}

fn it_leaves_by_itself(founder: &Machine, second: &Machine, third: &Machine) -> Outcome {
    let asked = now();
    let removed = founder.json("machine rm m2 --yes")?;
    ensure!(removed["ok"] == true, "{removed}");
    let steps = removed["payload"]["cleanup"].as_array().context("steps")?;
    let named: Vec<String> = steps.iter().map(|step| text(step, "/step")).collect();
    let expected = [
        "workloads",
        "mesh",
        "daemon",
        "record",
        "workload records",
        "observed",
        "credentials and peer",
    ];
    ensure!(named == expected, "{removed}");
    ensure!(steps.iter().all(|step| step["ok"] == true), "{removed}");
    ensure!(removed["payload"]["force"] == false);
    for machine in [founder, third] {
        let left = FORGET_WAIT.saturating_sub(asked.elapsed());
        wait_until("nobody to have the peer", left, || {
            let shown = machine
                .netns
                .attempt(&format!("wg show {} allowed-ips", machine.interface));
            shown.is_ok_and(|it| it.succeeded() && !it.stdout.contains("10.101.1.0/24"))
        })?;
    }
    show("removal, until nobody has the peer", asked.elapsed());
    wait_until("m2 to have left", PATIENCE, || {
        second
            .json("status")
            .is_ok_and(|it| it["payload"]["network"].is_null())
    })?;
    for file in ["network.json", "view.json", "member.json"] {
        wait_until(format!("{file} to be gone"), PATIENCE, || {
            !second.data_dir.join(file).exists()
        })?;
    }
    let addresses = second
        .netns
        .run(&format!("ip address show dev {}", second.interface))?;
    ensure!(!addresses.stdout.contains("10.101."), "{addresses}");
    Ok(())
}

/// Its identity is still its own.
fn it_comes_back_as_if_it_had_not_been(
    stage: &Stage,
    founder: &Machine,
    second: &mut Machine,
) -> Outcome {
    second.stop()?;
    second.start(stage)?;
    ensure!(second.code("mesh ready")? == "NETWORK_NOT_RUNNING");
    second.join(founder)?;
    second.wait_ready(PATIENCE)
}

/// It is the only one with the store, whoever asks; and nobody removes the machine that they sit at.
fn the_founder_is_not_removed_from_afar(
    stage: &Stage,
    founder: &Machine,
    second: &Machine,
) -> Outcome {
    let file = stage.place("operator.json");
    let make = format!(
        "credential create --role operator --name o --output {}",
        file.display()
    );
    founder.ctl(&make)?.success()?;
    let contexts = stage.place("contexts.toml");
    let with = format!("--config {}", contexts.display());
    second
        .ctl(&format!(
            "{with} context import {} --name o",
            file.display()
        ))?
        .success()?;
    for flags in ["", "--force"] {
        let line = format!("{with} --connect quic://10.0.0.2:51821 machine rm m1 --yes {flags}");
        ensure!(
            second.code(&line)? == "QUORUM_AT_RISK",
            "{}",
            second.json(&line)?
        );
        let own = founder.code(&format!("machine rm m1 --yes {flags}"))?;
        ensure!(own == "CANNOT_REMOVE_SELF", "{own}");
    }
    // The answer could not get back through a machine that is out of the network; through another one it can.
    let line =
        |through: u8| format!("{with} --connect quic://10.0.0.{through}:51821 machine rm m2 --yes");
    ensure!(second.code(&line(2))? == "CANNOT_REMOVE_SELF");
    let removed = second.json(&line(3))?;
    ensure!(removed["ok"] == true, "{removed}");
    wait_until("m2 to have left", PATIENCE, || {
        second
            .json("status")
            .is_ok_and(|it| it["payload"]["network"].is_null())
    })
}

/// By force, while its daemon runs; and it can be let in again.
fn it_hears_that_it_was_removed(founder: &Machine, second: &Machine) -> Outcome {
    second.join(founder)?;
    second.wait_ready(PATIENCE)?;
    let process = a_workload(founder, "m2")?;
    ensure!(founder.code("machine rm m2 --yes --force")? == "OK");
    wait_until("m2 to stop what it runs", PATIENCE * 2, || {
        !process.exists()
    })?;
    ensure!(second.json("status")?["payload"]["removed"] == true);
    ensure!(second.code("mesh destroy acme --force")? == "OK");
    second.join(founder)?;
    second.wait_ready(PATIENCE)?;
    ensure!(second.json("status")?["payload"]["removed"] == false);
    Ok(())
}

/// What it runs goes on without its daemon, until that is back and hears of it.
fn silence_is_no_consent(stage: &Stage, founder: &Machine, third: &mut Machine) -> Outcome {
    let process = a_workload(founder, "m3")?;
    third.kill();
    let refused = founder.json("machine rm m3 --yes")?;
    ensure!(refused["code"] == "MACHINE_UNREACHABLE", "{refused}");
    ensure!(text(&refused, "/hint").contains("--force"), "{refused}");
    ensure!(
        founder.code("machine inspect m3")? == "OK",
        "its record stays"
    );
    ensure!(founder.code("machine rm m3 --yes --force")? == "OK");
    ensure!(founder.code("machine inspect m3")? == "MACHINE_NOT_FOUND");
    ensure!(process.exists(), "nobody has stopped it");
    third.start(stage)?;
    wait_until("m3 to stop what it runs", PATIENCE * 2, || {
        !process.exists()
    })?;
    let status = third.json("status")?;
    ensure!(status["payload"]["removed"] == true, "{status}");
    let doctor = third.json("doctor")?;
    ensure!(
        doctor.to_string().contains("the machine was removed"),
        "{doctor}"
    );
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show(what: &str, took: Duration) {
    println!("{what}: {took:.1?}");
}
