//! Machines out of bare hosts, over ssh, as an operator does it who is not root there. What is in the way is named
//! before anything is changed; what fails later is taken back; a rerun goes on.
//!
//! ```text
//!   operator ── ssh ──▶ m1 (founds)   m2   m3   m4
//! ```

use std::time::Duration;

use anyhow::Result;
use ployz_netns_tests::cluster::text;
use ployz_netns_tests::command::{PATIENCE, run};
use ployz_netns_tests::operator::{ADD_PATIENCE, Operator, UnderWay};
use ployz_netns_tests::release::Published;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Contender, Lab, Outcome, Stage, tell_with};
use serde_json::Value;

/// `LEASE_SECS`, and the moment it takes to look.
const LEASE_WAIT: Duration = Duration::from_secs(30);

#[test]
fn hosts_become_machines() -> Outcome {
    tell_with(Contender::under_test(Backend::IoUring)?, |stage| {
        let lab = Lab::up(4)?;
        let operator = Operator::new(stage, &lab)?;
        a_network_is_founded_on_a_bare_host(&operator)?;
        what_nobody_has_signed_is_not_installed(stage, &lab, &operator)?;
        several_at_once_and_those_that_cannot(&lab, &operator)?;
        again_is_no_harm(&lab, &operator)?;
        a_host_without_power_is_gone_on_with(stage, &lab, &operator)?;
        a_client_without_power_is_seen_to_be_gone(stage, &operator)
    })
}

fn add(hosts: &[u8]) -> String {
    let targets: Vec<String> = hosts.iter().map(|host| Lab::target(*host)).collect();
    format!("machine add --network acme {}", targets.join(" "))
}

fn a_network_is_founded_on_a_bare_host(operator: &Operator<'_>) -> Result<()> {
    let init = format!("machine init {} --network acme", Lab::target(1));
    // Nobody has been there, and nobody said that this is all right.
    let strict = operator.json(&init)?;
    let failed = &strict["payload"]["failed"][0];
    assert_eq!(failed["code"], "SSH_FAILED", "{strict}");
    assert!(text(failed, "/hint").contains("--yes"), "{strict}");

    let payload = operator.done(&format!("{init} --yes --label tier=web --label rack=a1"))?;
    assert_eq!(payload["kind"], "machine-add");
    assert_eq!(payload["joined"][0]["status"], "founded", "{payload}");
    assert_eq!(payload["failed"], serde_json::json!([]));
    // The operator can go on at once.
    let machines = operator.done("machine ls")?;
    assert_eq!(machines["rows"][0]["lifecycle"], "active", "{machines}");
    let labels = serde_json::json!({"tier": "web", "rack": "a1"});
    assert_eq!(machines["rows"][0]["labels"], labels, "{machines}");
    Ok(())
}

fn what_nobody_has_signed_is_not_installed(
    stage: &Stage,
    lab: &Lab,
    operator: &Operator<'_>,
) -> Result<()> {
    let (published, other) = (Published::new(stage)?, Published::new(stage)?);
    let base = published.base.display();
    let flags = format!("{} --yes --release-base {base}", add(&[2]));
    let refused = operator.json(&format!("{flags} --release-key {}", other.public_key()?))?;
    assert_eq!(refused["code"], "INSTALL_FAILED", "{refused}");
    assert!(
        !lab.root(2).join("opt/ployz").exists(),
        "nothing was changed"
    );
    let key = published.public_key()?;
    let older = operator.json(&format!(
        "{flags} --release-key {key} --install-version 0.0.9"
    ))?;
    assert_eq!(
        older["payload"]["failed"][0]["code"], "INSTALL_FAILED",
        "{older}"
    );
    operator.done(&format!("{flags} --release-key {key} --label tier=db"))?;
    let settings = lab.ssh(2, "cat /etc/ployz/release.pub /etc/ployz/ployzd.toml")?;
    assert!(
        settings.stdout.contains(&key),
        "for its updates: {settings}"
    );
    Ok(())
}

fn several_at_once_and_those_that_cannot(lab: &Lab, operator: &Operator<'_>) -> Result<()> {
    let wrong = operator.json(&format!("{} --yes", add(&[2]).replace("acme", "other")))?;
    assert_eq!(wrong["code"], "NETWORK_MISMATCH", "{wrong}");

    lab.ssh(3, "sudo mv /etc/sudoers.d/op /root/")?.success()?;
    let cannot = operator.json(&format!("{} --yes", add(&[2, 3])))?;
    let payload = &cannot["payload"];
    assert_eq!(
        text(payload, "/joined/0/target"),
        Lab::target(2),
        "{cannot}"
    );
    assert_eq!(text(payload, "/failed/0/stage"), "preflight", "{cannot}");
    assert_eq!(text(payload, "/failed/0/code"), "FORBIDDEN", "{cannot}");
    let root = lab.root(3);
    assert!(!root.join("opt/ployz").exists(), "nothing was changed");
    std::fs::rename(root.join("root/op"), root.join("etc/sudoers.d/op"))?;

    // A full disk and a port that is taken, both said at once.
    lab.ssh(3, "sudo fallocate -l 700M /filler")?.success()?;
    let listener = "import socket,time; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('',51820)); time.sleep(60)";
    std::fs::write(root.join("tmp/take"), listener)?;
    let namespace = lab.namespace(3);
    let taken = root.join("tmp/take").display().to_string();
    let mut taking = std::process::Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "ip",
            "netns",
            "exec",
            &namespace,
            "python3",
            &taken,
        ])
        .spawn()?;
    wait_until("the port to be taken", PATIENCE, || {
        lab.ssh(3, "ss -Huln sport = 51820")
            .is_ok_and(|said| said.stdout.contains("51820"))
    })?;
    let cannot = operator.json(&add(&[3]))?;
    let message = text(&cannot, "/payload/failed/0/message");
    assert!(
        message.contains("51820 is in use") && message.contains("MiB free"),
        "{cannot}"
    );
    taking.kill()?;
    taking.wait()?;
    lab.ssh(3, "sudo rm /filler")?.success()?;

    // Somebody else's host key.
    let fresh = "sudo rm /etc/ssh/ssh_host_*; sudo ssh-keygen -q -A; sudo systemctl restart ssh";
    lab.ssh(3, fresh)?.success()?;
    let changed = operator.json(&format!("{} --yes", add(&[3])))?;
    let hint = text(&changed, "/payload/failed/0/hint");
    assert!(hint.contains("ssh-keygen -R 10.42.0.3"), "{changed}");
    let forget = ["ssh-keygen", "-q", "-R", "10.42.0.3"];
    lab.run(&forget, b"", PATIENCE)?.success()?;

    lab.kill(4)?;
    let mixed = operator.ctl(&format!("--json {} --yes", add(&[3, 4])), ADD_PATIENCE)?;
    assert_eq!(mixed.status.code(), Some(1), "{mixed}");
    let mixed: Value = serde_json::from_str(&mixed.stdout)?;
    assert_eq!(
        (&mixed["ok"], &mixed["code"]),
        (&false.into(), &"SSH_FAILED".into())
    );
    assert_eq!(
        text(&mixed, "/payload/joined/0/target"),
        Lab::target(3),
        "{mixed}"
    );
    assert_eq!(
        text(&mixed, "/payload/failed/0/code"),
        "SSH_FAILED",
        "{mixed}"
    );
    lab.boot(4)?;

    let machines = operator.done("machine ls")?;
    let rows = machines["rows"].as_array().cloned().unwrap_or_default();
    assert_eq!(rows.len(), 3, "{machines}");
    assert!(
        rows.iter().all(|row| row["lifecycle"] == "active"),
        "{machines}"
    );
    assert_eq!(rows[1]["labels"]["tier"], "db", "{machines}");
    Ok(())
}

fn again_is_no_harm(lab: &Lab, operator: &Operator<'_>) -> Result<()> {
    let identity = lab.identity();
    let again = operator.done(&format!(
        "{} --identity {}",
        add(&[2, 3]),
        identity.display()
    ))?;
    let none = operator.json(&format!("{} --identity /nowhere", add(&[2])))?;
    assert_eq!(none["code"], "INVALID_ARGUMENT", "{none}");
    assert_eq!(again["joined"][1]["status"], "already a member", "{again}");
    let id = text(&again, "/operation_id");
    let work = operator.done(&format!("operation get {id}"))?;
    assert_eq!(work["state"], "done", "{work}");
    Ok(())
}

/// Without WireGuard m4 does not get ready, so that there is time. The rule is the namespace's: it outlives the
/// machine.
fn cut_wireguard(lab: &Lab) -> Result<()> {
    nft(lab, 4, "add table inet cut")?;
    nft(
        lab,
        4,
        "add chain inet cut in { type filter hook input priority 0; }",
    )?;
    nft(lab, 4, "add rule inet cut in udp dport 51820 drop")
}

/// Begins to add m4, and waits until it gets to a stage.
fn begin_to_add(stage: &Stage, operator: &Operator<'_>, until: &str) -> Result<UnderWay> {
    let mut adding = operator.start(stage, &format!("--json {} --yes", add(&[4])))?;
    let entered = format!("{}  {until}", Lab::target(4));
    wait_until(format!("stage {until}"), ADD_PATIENCE, || {
        adding.progress().contains(&entered) || adding.has_ended()
    })?;
    Ok(adding)
}

/// Changes the firewall of a machine, from outside.
fn nft(lab: &Lab, machine: u8, rule: &str) -> Result<()> {
    let argv = ["ip", "netns", "exec", &lab.namespace(machine), "nft", rule].map(str::to_owned);
    run(&argv, b"", PATIENCE)?.success()?;
    Ok(())
}

/// In each stage that changes something.
fn a_host_without_power_is_gone_on_with(
    stage: &Stage,
    lab: &Lab,
    operator: &Operator<'_>,
) -> Result<()> {
    // Before its daemon ever runs: one that has had its handshakes is ready.
    cut_wireguard(lab)?;
    for at in ["install", "join", "ready"] {
        let mut adding = begin_to_add(stage, operator, at)?;
        lab.kill(4)?;
        wait_until("the client to notice", ADD_PATIENCE, || adding.has_ended())?;
        let document = adding.document()?;
        let failed = &document["payload"]["failed"][0];
        assert_eq!(text(failed, "/target"), Lab::target(4), "{at}: {document}");
        // A stage that was over before the power was cut is followed by the next.
        assert_ne!(text(failed, "/stage"), "preflight", "{at}: {document}");
        lab.boot(4)?;
    }
    // The one who drives it may lose its daemon, too.
    let mut adding = begin_to_add(stage, operator, "ready")?;
    lab.ssh(1, "sudo systemctl kill --signal KILL ployzd.service")?
        .success()?;
    nft(lab, 4, "delete table inet cut")?;
    wait_until("it to be done", ADD_PATIENCE, || adding.has_ended())?;
    let document = adding.document()?;
    assert_eq!(
        text(&document, "/payload/joined/0/target"),
        Lab::target(4),
        "{document}"
    );
    wait_until("all four to be reachable", PATIENCE, || {
        let machines = operator.done("machine ls").unwrap_or_default();
        let rows = machines["rows"].as_array().cloned().unwrap_or_default();
        rows.len() == 4 && rows.iter().all(|row| row["reachable"] == true)
    })
}

fn a_client_without_power_is_seen_to_be_gone(stage: &Stage, operator: &Operator<'_>) -> Result<()> {
    let adding = operator.start(stage, &add(&[2]))?;
    wait_until("it to begin", ADD_PATIENCE, || {
        adding.progress().contains("preflight")
    })?;
    adding.kill()?;
    let operations = operator.done("operation list")?;
    let last = operations["operations"]
        .as_array()
        .and_then(|all| all.last().cloned());
    let id = text(&last.unwrap_or_default(), "/operation_id");
    wait_until("the work to count as interrupted", LEASE_WAIT, || {
        operator
            .done(&format!("operation get {id}"))
            .is_ok_and(|work| work["state"] == "interrupted" && work["next"] != "")
    })?;
    operator.done(&add(&[2]))?;
    Ok(())
}
