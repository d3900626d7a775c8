//! The user's page from top to bottom, on four machines with a systemd of their own, as an operator with sudo does it.
//!
//! ```text
//!   operator ── ssh ──▶ m1 (founds)   m2   m3 (are added)   m4 (invited, and bootstraps itself)
//! ```

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use ployz_netns_tests::cluster::text;
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::operator::Operator;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Backend, Contender, Lab, Outcome, tell_with};
use serde_json::Value;

/// A machine that is removed is gone everywhere by then.
const GONE_WAIT: Duration = Duration::from_secs(2);

#[test]
fn the_page() -> Outcome {
    tell_with(Contender::under_test(Backend::IoUring)?, |stage| {
        let lab = Lab::up(4)?;
        let operator = Operator::new(stage, &lab)?;
        initializing_and_adding(&operator)?;
        the_invite_workflow(&lab, &operator)?;
        lifecycle_transitions(&lab, &operator)?;
        removing(&lab, &operator)
    })
}

fn rows(operator: &Operator<'_>) -> Result<Vec<Value>> {
    let list = operator.done("machine ls")?;
    list["rows"].as_array().cloned().context("no rows")
}

fn lifecycle_of(operator: &Operator<'_>, name: &str) -> Result<String> {
    let rows = rows(operator)?;
    let row = rows.iter().find(|row| row["name"] == name);
    Ok(text(row.context("no such machine")?, "/lifecycle"))
}

fn initializing_and_adding(operator: &Operator<'_>) -> Result<()> {
    let flags = "--network my-cluster --runtime host --service-mode system --yes";
    let init = format!(
        "machine init {} {flags} --install-source release --install-version latest",
        Lab::target(1)
    );
    operator.done(&init)?;
    let add = format!("machine add {flags} {} {}", Lab::target(2), Lab::target(3));
    let added = operator.done(&add)?;
    assert_eq!(added["joined"].as_array().map(Vec::len), Some(2), "{added}");
    for row in rows(operator)? {
        assert_eq!(row["lifecycle"], "active", "{row}");
        let shown = [
            "overlay_ip",
            "region_role",
            "authority",
            "subnet",
            "created_at",
        ];
        assert!(shown.iter().all(|field| !row[field].is_null()), "{row}");
    }
    // Every pair, either way.
    wait_until("six pairs to be measured", PATIENCE, || {
        let measured = operator.done("machine rtt").unwrap_or_default();
        let rows = measured["rows"].as_array().cloned().unwrap_or_default();
        rows.len() == 6 && measured["warnings"] == serde_json::json!([])
    })
}

fn the_invite_workflow(lab: &Lab, operator: &Operator<'_>) -> Result<()> {
    let spare = operator.done("machine invite create --ttl-secs 300")?;
    let id = text(&spare, "/invite_id");
    operator.done(&format!("machine invite revoke {id}"))?;
    let invite = operator.done("machine invite create --ttl-secs 300")?;
    let listed = operator.done("machine invite list")?;
    let invites = listed["invites"].as_array().cloned().unwrap_or_default();
    assert!(
        invites.iter().all(|it| it["invite_id"] != id.as_str()),
        "{listed}"
    );
    assert!(
        invites
            .iter()
            .any(|it| it["invite_id"] == invite["invite_id"]),
        "{listed}"
    );

    // The machine installs what somebody has brought it, and joins by itself.
    operator.bring_programs(4, "/home/op/ployz")?;
    lab.ssh(
        4,
        "sudo ./ployz/ployzctl daemon install --runtime host --service-mode system",
    )?
    .success()?;
    let token = text(&invite, "/token");
    let import = |token: &str| {
        lab.ssh(
            4,
            &format!("sudo ployzctl --json machine invite import --token {token}"),
        )
    };
    let revoked = import(&text(&spare, "/token"))?;
    assert!(revoked.stdout.contains("INVITE_REVOKED"), "{revoked}");
    import(&token)?.success()?;
    assert_eq!(lifecycle_of(operator, "m4")?, "active");
    let all = operator.done("machine invite list --all")?;
    let used = all["invites"].as_array().and_then(|all| {
        all.iter()
            .find(|it| it["invite_id"] == invite["invite_id"])
            .cloned()
    });
    assert_eq!(used.context("the invite")?["status"], "consumed");
    Ok(())
}

fn lifecycle_transitions(lab: &Lab, operator: &Operator<'_>) -> Result<()> {
    let run = |command: &str, expected: &str| {
        operator.done(&format!("machine {command}"))?;
        assert_eq!(lifecycle_of(operator, "m4")?, expected, "{command}");
        anyhow::Ok(())
    };
    run("drain m4", "drained")?;
    run("activate m4", "active")?;
    run("drain m4", "drained")?;
    run("standby m4", "standby")?;
    run("activate m4", "active")?;

    // A drain lets what is there run on; what is parked by force does so as well.
    operator.done(
        "deploy service web --machine m4 --env SAID=it's-$HOME-\"quoted\" --exec echo${IFS}said:$SAID;exec${IFS}sleep${IFS}600",
    )?;
    wait_until("web to say something", PATIENCE, || {
        let logs = operator.ctl("workload logs default/web", PATIENCE);
        logs.is_ok_and(|said| said.stdout.contains("said:it's-$HOME-\"quoted\""))
    })?;
    run("drain m4", "draining")?;
    let refused = operator.json("deploy service other --machine m4 --exec true")?;
    assert_eq!(refused["ok"], false, "{refused}");
    let held = operator.json("machine standby m4")?;
    assert_eq!(held["code"], "MACHINE_HOLDS_WORKLOADS", "{held}");
    assert!(text(&held, "/message").contains("default/web"), "{held}");
    run("standby --force m4", "standby")?;
    let units = lab.ssh(4, "systemctl list-units --no-legend 'ployz-workload-*'")?;
    assert!(units.stdout.contains("running"), "{units}");
    Ok(())
}

fn removing(lab: &Lab, operator: &Operator<'_>) -> Result<()> {
    let removed = operator.done("machine rm m4 --yes")?;
    assert_eq!(removed["force"], false, "{removed}");
    let steps = removed["cleanup"].as_array().cloned().unwrap_or_default();
    assert!(
        steps.len() >= 3 && steps.iter().all(|step| step["ok"] == true),
        "{removed}"
    );
    for machine in [1, 2, 3] {
        wait_until(format!("m4 to be gone from m{machine}"), GONE_WAIT, || {
            lab.ssh(machine, "sudo ployzctl --json machine ls")
                .is_ok_and(|said| said.succeeded() && !said.stdout.contains("\"m4\""))
        })?;
    }
    wait_until("nothing to be left on m4", PATIENCE, || {
        let root = lab.root(4);
        [
            "opt/ployz",
            "etc/ployz",
            "var/lib/ployz",
            "usr/local/bin/ployzd",
        ]
        .iter()
        .all(|left| !fs::exists(root.join(left)).unwrap_or(true))
    })?;
    let units = lab.ssh(4, "systemctl list-units --all --no-legend 'ploy*'; ip link")?;
    assert!(!units.stdout.contains("ploy"), "{units}");

    // One that is gone without a word.
    lab.kill(3)?;
    let unreachable = operator.json("machine rm m3 --yes")?;
    assert_eq!(unreachable["ok"], false, "{unreachable}");
    assert!(
        text(&unreachable, "/hint").contains("--force"),
        "{unreachable}"
    );
    assert_eq!(
        lifecycle_of(operator, "m3")?,
        "active",
        "it is still a member"
    );
    operator.done("machine rm --force --yes m3")?;
    let names: Vec<Value> = rows(operator)?
        .into_iter()
        .map(|row| row["name"].clone())
        .collect();
    assert_eq!(names, ["m1", "m2"]);
    Ok(())
}
