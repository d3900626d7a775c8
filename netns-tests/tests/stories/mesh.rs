//! A network is drawn up, started, stopped, started again and destroyed; its machines get other names and labels.
//!
//! ```text
//!   m1 founds, m2 joins ── switch
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::{stays, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};

#[test]
fn from_created_to_destroyed() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = segment.running_machines(stage, 2)?;
        create_and_start(stage, &mut machines[0])?;
        let token = machines[0].invite("")?;
        let joined = machines[1].ctl_with("mesh join --token-stdin", &token)?;
        ensure!(joined.succeeded(), "{joined}");
        machines[1].wait_ready(PATIENCE)?;
        stop_and_start_a_member(stage, &mut machines)?;
        stop_and_start_the_founder(&machines)?;
        destroy(&machines)
    })
}

fn says(machine: &Machine, arguments: &str, code: &str) -> Result<()> {
    let document = machine.json(arguments)?;
    ensure!(text(&document, "/code") == code, "{arguments}: {document}");
    Ok(())
}

fn state(machine: &Machine) -> Result<String> {
    Ok(text(
        &machine.json("network list")?,
        "/payload/rows/0/state",
    ))
}

/// What is drawn up is on disk, runs nowhere, and survives a restart.
fn create_and_start(stage: &Stage, founder: &mut Machine) -> Result<()> {
    says(founder, "mesh start", "NETWORK_NOT_RUNNING")?;
    ensure!(founder.json("mesh list")?["payload"]["rows"] == serde_json::json!([]));
    let created = founder.ctl_with("mesh create --name-stdin --wg-port 51999", "acme\n")?;
    ensure!(created.succeeded(), "{created}");
    founder.stop()?;
    founder.start(stage)?;
    ensure!(state(founder)? == "created");
    says(founder, "mesh create acme", "OK")?;
    says(founder, "mesh create other", "NETWORK_ALREADY_RUNNING")?;
    says(founder, "mesh ready", "NETWORK_NOT_RUNNING")?;
    ensure!(text(&founder.json("machine ls")?, "/hint") == "ployzctl mesh start");
    says(founder, "mesh stop", "OK")?;
    let started = founder.json("mesh start")?;
    let token = text(&started, "/payload/invite/token");
    ensure!(token.starts_with("ployz2."), "{started}");
    let again = founder.json("mesh init acme")?;
    ensure!(text(&again, "/message").contains("already"), "{again}");
    says(founder, "mesh status acme", "OK")?;
    says(founder, "mesh status other", "NETWORK_MISMATCH")?;
    let ready = founder.json("mesh ready")?;
    ensure!(ready["payload"]["ready"] == true, "{ready}");
    let record = founder.json("mesh self-record")?;
    let endpoint = text(&record, "/payload/record/endpoints/0");
    ensure!(endpoint == "10.0.0.1:51999", "{record}");
    Ok(())
}

fn stop_and_start_a_member(stage: &Stage, machines: &mut [Machine]) -> Result<()> {
    let [founder, member] = machines else {
        unreachable!("there are two");
    };
    wait_until("the overlay", PATIENCE, || founder.reaches("10.101.1.1"))?;
    says(member, "mesh stop", "INVALID_TRANSITION")?;
    ensure!(founder.reaches("10.101.1.1"), "a refusal changes nothing");
    says(member, "mesh stop --force", "OK")?;
    says(member, "mesh stop --force", "OK")?;
    member.stop()?;
    member.start(stage)?;
    ensure!(state(member)? == "stopped");
    says(member, "machine ls", "NETWORK_NOT_RUNNING")?;
    let line = format!("ip -4 address show dev {}", member.interface);
    ensure!(member.netns.run(&line)?.stdout.trim().is_empty());
    stays("m2 is out of reach", Duration::from_secs(2), || {
        !founder.reaches("10.101.1.1")
    })?;
    says(member, "mesh start", "OK")?;
    member.wait_ready(PATIENCE)?;
    wait_until("the overlay", PATIENCE, || founder.reaches("10.101.1.1"))
}

/// Its store stops with it, and comes back with everything that was in it.
fn stop_and_start_the_founder(machines: &[Machine]) -> Result<()> {
    let (founder, member) = (&machines[0], &machines[1]);
    let store = founder.store_pid()?;
    says(founder, "mesh stop --force", "OK")?;
    let gone = || !std::path::Path::new(&format!("/proc/{store}")).exists();
    ensure!(gone(), "nats-server runs on");
    says(founder, "mesh init acme", "OK")?;
    for machine in [founder, member] {
        machine.wait_ready(PATIENCE)?;
        let list = machine.json("machine ls")?;
        let rows = list["payload"]["rows"].as_array().map(Vec::len);
        ensure!(rows == Some(2), "{list}");
    }
    Ok(())
}

fn destroy(machines: &[Machine]) -> Result<()> {
    let (founder, member) = (&machines[0], &machines[1]);
    says(member, "mesh destroy", "UNSUPPORTED")?;
    says(founder, "mesh destroy other", "NETWORK_MISMATCH")?;
    let refused = founder.json("mesh destroy acme")?;
    ensure!(text(&refused, "/code") == "CONFLICT", "{refused}");
    ensure!(text(&refused, "/message").contains("m2"), "{refused}");
    for machine in machines {
        says(machine, "mesh destroy acme --force", "OK")?;
        says(machine, "mesh destroy", "OK")?;
        for file in ["network.json", "view.json", "ca.json", "nats"] {
            ensure!(!machine.data_dir.join(file).exists(), "{file} is left");
        }
    }
    says(
        founder,
        "mesh init other --cluster-cidr 10.102.0.0/16",
        "OK",
    )?;
    let token = founder.invite("")?;
    ensure!(member.import(&token)?["ok"] == true);
    wait_until("the other overlay", PATIENCE, || {
        member.reaches("10.102.0.1")
    })
}

#[test]
fn names_and_labels_change_while_everybody_watches() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let machines = segment.running_machines(stage, 2)?;
        let (founder, member) = (&machines[0], &machines[1]);
        says(founder, "mesh init acme", "OK")?;
        member.join(founder)?;
        wait_until("m1 to see m2", PATIENCE, || {
            founder
                .code("machine inspect m2")
                .is_ok_and(|it| it == "OK")
        })?;
        rename(founder, member)?;
        label(founder, member)
    })
}

fn rename(founder: &Machine, member: &Machine) -> Result<()> {
    says(member, "machine rename m2 web", "UNSUPPORTED")?;
    says(founder, "machine rename m2 m1", "CONFLICT")?;
    says(founder, "machine rename nobody web", "MACHINE_NOT_FOUND")?;
    for wanted in ["m2", "web"] {
        says(founder, &format!("machine rename {wanted} web"), "OK")?;
        for machine in [founder, member] {
            wait_until("the name to be known", PATIENCE, || {
                machine
                    .code("machine inspect web")
                    .is_ok_and(|it| it == "OK")
            })?;
        }
    }
    ensure!(text(&member.json("status")?, "/payload/name") == "web");
    says(member, "machine inspect m2", "MACHINE_NOT_FOUND")?;
    says(founder, "machine rename m1 m2", "OK")?;
    let usage = founder.ctl("machine rename web Web_1")?;
    ensure!(usage.status.code() == Some(2), "{usage}");
    Ok(())
}

fn label(founder: &Machine, member: &Machine) -> Result<()> {
    says(founder, "machine label web tier=db rack=7", "OK")?;
    let labelled = founder.json("machine label web rack- tier=web")?;
    ensure!(
        labelled["payload"]["record"]["labels"] == serde_json::json!({"tier": "web"}),
        "{labelled}"
    );
    let again = founder.json("machine label web rack- tier=web")?;
    ensure!(text(&again, "/message").contains("already"), "{again}");
    wait_until("m2 to hear its labels", PATIENCE, || {
        let list = member.json("machine inspect web").unwrap_or_default();
        text(&list, "/payload/machine/labels/tier") == "web"
    })?;
    let usage = founder.ctl("machine label web =db")?;
    ensure!(usage.status.code() == Some(2), "{usage}");
    let many: Vec<String> = (0..33).map(|number| format!("l{number}=")).collect();
    says(
        founder,
        &format!("machine label web {}", many.join(" ")),
        "INVALID_ARGUMENT",
    )
}
