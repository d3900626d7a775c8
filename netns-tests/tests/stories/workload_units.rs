//! Workloads on a real systemd, below a daemon with no more rights than its unit gives it: transient units, which
//! outlive the daemon, are started again when they fail, and have their environment from a file that nobody else reads.

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::command::{Finished, PATIENCE};
use ployz_netns_tests::release::side_by_side;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Lab, Outcome};
use serde_json::Value;

/// Where the programs lie before they are installed.
const SOURCE: &str = "/srv/ployz";
/// A path that is several words for systemd, with a specifier in them.
const ODD_PATH: &str = "/srv/with blank %n";
/// Everything that a shell, or systemd, could take for something else.
const ODD: &str = r#"it's a \"se\\kret\" \$HOME \`id\`"#;

#[test]
fn units_outlive_the_daemon_and_are_started_again() -> Outcome {
    let lab = Lab::up(1)?;
    side_by_side(&lab.root(1).join(SOURCE.trim_start_matches('/')))?;
    root(
        &lab,
        &format!("{SOURCE}/ployzctl daemon install --runtime host"),
    )?
    .success()?;
    root(&lab, "ployzctl mesh init acme")?.success()?;
    let command = "date >> /srv/d/beat; echo \"<$ODD>\"; exec sleep 1000";
    let line = format!(
        "ployzctl deploy service web --exec '{command}' --env \"ODD={ODD}\" --volume data:/srv/d"
    );
    root(&lab, &line)?.success()?;
    let first = wait_running(&lab, "")?;
    wait_until("what it writes to be in the journal", PATIENCE, || {
        let logs = root(&lab, "ployzctl workload logs web");
        logs.is_ok_and(|logs| logs.stdout.trim() == r#"<it's a "se\kret" $HOME `id`>"#)
    })?;
    let shown = root(
        &lab,
        "sh -c 'systemctl show \"ployz-workload-*\"; journalctl --unit ployzd'",
    )?;
    ensure!(
        !shown.stdout.contains("kret"),
        "a value is nobody's business: {shown}"
    );

    root(&lab, "systemctl restart ployzd")?.success()?;
    root(&lab, "ployzctl mesh ready")?;
    ensure!(wait_running(&lab, "")? == first, "it was adopted");

    root(&lab, &format!("kill -KILL {first}"))?.success()?;
    wait_running(&lab, &first)?;
    let beats = root(&lab, "cat /var/lib/ployz/volumes/default/web/data/beat")?;
    ensure!(beats.stdout.lines().count() == 2, "{beats}");

    a_unit_reaches_nothing_but_its_volume(&lab)?;
    what_has_ended_well_is_not_run_again_after_a_boot(&lab)?;
    root(&lab, "ployzctl workload rm web")?.success()?;
    wait_until("its unit to be gone", PATIENCE, || {
        let units = root(
            &lab,
            "systemctl list-units --all --no-legend \"ployz-workload-*\"",
        );
        units.is_ok_and(|units| units.stdout.trim().is_empty())
    })
}

/// Whatever its path, and whoever it belonged to: the version before ran every command as root.
fn a_unit_reaches_nothing_but_its_volume(lab: &Lab) -> Result<()> {
    let volume = "/var/lib/ployz/volumes/default/odd/data";
    root(
        lab,
        &format!("sh -c 'mkdir -p -m 700 {volume} && echo old > {volume}/kept && chmod 600 {volume}/kept'"),
    )?
    .success()?;
    let attack = format!(
        "cat /var/lib/ployz/ca.json /etc/shadow; ls /var/lib/ployz; systemctl stop ployzd; id -u; \
         grep CapEff /proc/self/status; echo new >> \"{ODD_PATH}/kept\" && cat \"{ODD_PATH}/kept\"; exit 0"
    );
    let line = format!("ployzctl deploy service odd --volume 'data:{ODD_PATH}' --exec '{attack}'");
    root(lab, &line)?.success()?;
    wait_until("the attack to be over", PATIENCE, || {
        is(lab, "odd", "exited")
    })?;
    let mut said = String::new();
    wait_until("what it writes to be in the journal", PATIENCE, || {
        let logs = root(lab, "ployzctl workload logs odd");
        said = logs.map(|logs| logs.stdout).unwrap_or_default();
        said.contains("old\nnew")
    })
    .with_context(|| said.clone())?;
    ensure!(
        !said.contains("PRIVATE KEY"),
        "the authority's key was read"
    );
    ensure!(!said.contains("root:"), "{said}");
    let is_user = |line: &str| line.parse().is_ok_and(|uid: u32| uid >= 0x7000_0000);
    ensure!(said.lines().any(is_user), "{said}");
    ensure!(said.contains("0000000000000000"), "{said}");
    root(lab, "ployzctl workload rm odd")?.success()?;
    Ok(())
}

/// The other one, which had not ended, is.
fn what_has_ended_well_is_not_run_again_after_a_boot(lab: &Lab) -> Result<()> {
    let line = "ployzctl deploy service once --exec 'date >> /srv/o/beat' --volume data:/srv/o";
    root(lab, line)?.success()?;
    wait_until("it to have ended", PATIENCE, || is(lab, "once", "exited"))?;
    lab.kill(1)?;
    lab.boot(1)?;
    let volumes = "/var/lib/ployz/volumes/default";
    wait_until("the other one to run again", PATIENCE, || {
        let beats = root(lab, &format!("cat {volumes}/web/data/beat"));
        beats.is_ok_and(|beats| beats.stdout.lines().count() == 3) && is(lab, "web", "running")
    })?;
    ensure!(is(lab, "once", "exited"), "it has ended");
    let beats = root(lab, &format!("cat {volumes}/once/data/beat"))?;
    ensure!(beats.stdout.lines().count() == 1, "{beats}");
    root(lab, "ployzctl workload rm once")?.success()?;
    Ok(())
}

/// Whether a workload is in a state.
fn is(lab: &Lab, name: &str, wanted: &str) -> bool {
    let list = root(lab, "ployzctl --json workload ls").ok();
    let list = list.and_then(|list| serde_json::from_str::<Value>(&list.stdout).ok());
    let list = list.unwrap_or_default();
    let rows = list["payload"]["rows"].as_array().cloned();
    rows.unwrap_or_default()
        .iter()
        .any(|row| row["workload"] == format!("default/{name}") && row["state"] == wanted)
}

/// Waits until it runs, as another process than this one; which.
fn wait_running(lab: &Lab, other: &str) -> Result<String> {
    let mut pid = String::new();
    wait_until("the workload to run", PATIENCE, || {
        let line = "systemctl show --property MainPID --value \"ployz-workload-*\"";
        pid = root(lab, line)
            .map(|it| it.stdout.trim().to_owned())
            .unwrap_or_default();
        let is_up = !pid.is_empty() && pid != "0" && pid != other;
        is_up && state(lab).is_ok_and(|state| state == "running")
    })?;
    Ok(pid)
}

fn state(lab: &Lab) -> Result<String> {
    let list: Value = serde_json::from_str(&root(lab, "ployzctl --json workload ls")?.stdout)?;
    let state = list
        .pointer("/payload/rows/0/state")
        .and_then(Value::as_str);
    Ok(state.context("a state")?.to_owned())
}

fn root(lab: &Lab, line: &str) -> Result<Finished> {
    lab.ssh(1, &format!("sudo {line}"))
}
