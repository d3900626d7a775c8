//! `ployzctl daemon install` and `uninstall` on a real systemd: the daemon and the store's server as hardened units,
//! nothing half-done when something is in the way, and nothing left in the end.
//!
//! ```text
//!   m1 founds ── switch ── m2 joins
//! ```

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::command::{Finished, PATIENCE};
use ployz_netns_tests::release::side_by_side;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Lab, Outcome};
use serde_json::Value;

/// Where the programs lie before they are installed.
const SOURCE: &str = "/srv/ployz";
/// Everything that an installation has, and the interface.
const TRACES: &str = "ls -d /opt/ployz /etc/ployz /var/lib/ployz /usr/local/bin/ployz* /etc/systemd/system/ployz* \
                      /etc/systemd/system/*.wants/ployz* /run/wireguard/* /sys/class/net/ployz0 2>/dev/null";

#[test]
fn a_service_is_installed_restarted_and_taken_away_again() -> Outcome {
    let lab = Lab::up(2)?;
    for machine in [1, 2] {
        side_by_side(&lab.root(machine).join(SOURCE.trim_start_matches('/')))?;
    }
    refuses_what_cannot_be(&lab)?;
    undoes_what_does_not_start(&lab)?;

    let first = install(&lab, 1, "--runtime host")?;
    ensure!(
        first["ok"] == true && first["payload"]["from"].is_null(),
        "{first}"
    );
    let again = install(&lab, 1, "--runtime host")?;
    ensure!(
        again["payload"]["changed"] == serde_json::json!([]),
        "{again}"
    );
    let other = install(&lab, 2, "--runtime host --name second --wg-port 51900")?;
    ensure!(other["ok"] == true, "{other}");

    root(&lab, 1, "ployzctl mesh init acme")?.success()?;
    let token = document(&root(&lab, 1, "ployzctl --json machine invite create")?)?;
    let token = token["payload"]["token"].as_str().context("a token")?;
    root(
        &lab,
        2,
        &format!("ployzctl machine invite import --token {token}"),
    )?
    .success()?;
    root(&lab, 2, "ployzctl mesh ready")?.success()?;
    let listed = document(&root(&lab, 2, "ployzctl --json machine ls")?)?;
    ensure!(listed["payload"]["rows"][1]["name"] == "second", "{listed}");
    lab.ssh(1, "ping -c 3 -i 0.2 10.101.1.1")?.success()?;

    the_store_outlives_the_daemon(&lab)?;
    the_units_are_sandboxes(&lab)?;
    settings_change_and_stay(&lab)?;
    goes_when_it_is_removed(&lab)?;
    leaves_nothing(&lab, 1)
}

fn refuses_what_cannot_be(lab: &Lab) -> Outcome {
    for (flags, code, said) in [
        ("--runtime docker", "INSTALL_FAILED", "Docker Engine"),
        ("--runtime host --service-mode user", "UNSUPPORTED", "TUN"),
    ] {
        let refused = install(lab, 1, flags)?;
        ensure!(refused["code"] == code, "{refused}");
        ensure!(refused["message"].to_string().contains(said), "{refused}");
    }
    let line = format!("{SOURCE}/ployzctl --json daemon install --runtime host");
    let refused = document(&lab.ssh(1, &line)?)?;
    ensure!(refused["code"] == "FORBIDDEN", "{refused}");
    has_no_traces(lab, 1)
}

/// Somebody has the port.
fn undoes_what_does_not_start(lab: &Lab) -> Outcome {
    let squatter = format!(
        "sh -c 'printf \"[Interface]\\nListenPort = 51820\\n\" >/root/squatter.conf; \
         systemd-run --quiet --unit squatter --service-type notify {SOURCE}/ployzd dataplane wg9 --config /root/squatter.conf'"
    );
    root(lab, 1, &squatter)?.success()?;
    let refused = install(lab, 1, "--runtime host")?;
    ensure!(refused["code"] == "INSTALL_FAILED", "{refused}");
    ensure!(
        refused["message"].to_string().contains("51820"),
        "{refused}"
    );
    root(lab, 1, "systemctl stop squatter")?.success()?;
    let left = "sh -c 'ls -d /etc/ployz /var/lib/ployz /usr/local/bin/ployz* /opt/ployz/current /opt/ployz/versions/* \
                /etc/systemd/system/ployz* /etc/systemd/system/*.wants/ployz* 2>/dev/null'";
    let left = root(lab, 1, left)?.stdout;
    ensure!(left.is_empty(), "{left}");
    let state = root(lab, 1, "systemctl is-active ployzd")?.stdout;
    ensure!(state.trim() == "inactive", "{state}");
    Ok(())
}

/// Neither a restart nor a crash of one is the other's concern, and what has crashed is back by itself.
fn the_store_outlives_the_daemon(lab: &Lab) -> Outcome {
    let store = main_pid(lab, "ployz-nats")?;
    let daemon = main_pid(lab, "ployzd")?;
    root(lab, 1, "systemctl restart ployzd")?.success()?;
    ensure!(main_pid(lab, "ployzd")? != daemon);
    ensure!(
        main_pid(lab, "ployz-nats")? == store,
        "it was restarted with the daemon"
    );
    wait_ready(lab)?;

    root(lab, 1, "systemctl kill --signal KILL ployz-nats")?.success()?;
    wait_until("another nats-server", PATIENCE, || {
        main_pid(lab, "ployz-nats").is_ok_and(|pid| pid != store && pid != "0")
    })?;
    wait_ready(lab)?;
    // It lets in who is invited from now on: the daemon reaches the new process.
    let status = document(&root(lab, 1, "ployzctl --json status")?)?;
    let pid = status["payload"]["storage"]["pid"].to_string();
    ensure!(pid == main_pid(lab, "ployz-nats")?, "{status}");
    ensure!(
        status["payload"]["installation"]["service_mode"] == "system",
        "{status}"
    );

    root(lab, 1, "ployzctl mesh stop --force")?.success()?;
    ensure!(
        main_pid(lab, "ployz-nats")? == "0",
        "the store is stopped here"
    );
    root(lab, 1, "ployzctl mesh start")?.success()?;
    wait_ready(lab)
}

/// What the sandbox must not take away, and that it is one (100 is none).
fn the_units_are_sandboxes(lab: &Lab) -> Outcome {
    let status = document(&root(lab, 1, "ployzctl --json status")?)?;
    ensure!(
        status["payload"]["data_plane"]["backend"] == "io_uring",
        "{status}"
    );
    for (unit, exposure_max) in [("ployzd", 31), ("ployz-nats", 17)] {
        let line = format!("systemd-analyze security --no-pager --threshold {exposure_max} {unit}");
        root(lab, 1, &line)?.success()?;
    }
    Ok(())
}

fn settings_change_and_stay(lab: &Lab) -> Outcome {
    let store = main_pid(lab, "ployz-nats")?;
    root(lab, 1, "sh -c 'echo shards = 2 >>/etc/ployz/ployzd.toml'")?.success()?;
    let changed = install(
        lab,
        1,
        "--runtime host --release-base https://example.org/ployz",
    )?;
    ensure!(
        changed["payload"]["changed"] == serde_json::json!(["/etc/ployz/ployzd.toml"]),
        "{changed}"
    );
    let status = document(&root(lab, 1, "ployzctl --json status")?)?;
    let payload = &status["payload"];
    ensure!(
        payload["data_plane"]["details"]["shards"] == "2",
        "{status}"
    );
    ensure!(
        payload["installation"]["release_base"] == "https://example.org/ployz",
        "{status}"
    );
    ensure!(main_pid(lab, "ployz-nats")? == store);
    wait_ready(lab)
}

/// The founder removes the second machine, and with it everything of ployz there.
fn goes_when_it_is_removed(lab: &Lab) -> Outcome {
    refuses_to_go(lab, 2)?;
    let line = "ployzctl deploy service web --machine second --exec 'exec sleep 1000'";
    root(lab, 1, line)?.success()?;
    wait_until("the workload to run", PATIENCE, || {
        root(lab, 2, "systemctl is-active 'ployz-workload-*'").is_ok_and(|it| it.succeeded())
    })?;
    let removed = document(&root(lab, 1, "ployzctl --json machine rm second --yes")?)?;
    ensure!(removed["ok"] == true, "{removed}");
    let cleanup = &removed["payload"]["cleanup"];
    ensure!(cleanup[0]["message"] == "1 stopped", "{removed}");
    let daemon = &cleanup[2];
    ensure!(
        daemon["step"] == "daemon" && daemon["message"].to_string().contains("uninstalled"),
        "{removed}"
    );
    wait_until("ployz to be gone from m2", PATIENCE, || {
        has_no_traces(lab, 2).is_ok()
    })?;
    knows_of_nothing(lab, 2)
}

fn leaves_nothing(lab: &Lab, machine: u8) -> Outcome {
    refuses_to_go(lab, machine)?;
    root(lab, machine, "ployzctl daemon uninstall --force")?.success()?;
    has_no_traces(lab, machine)?;
    knows_of_nothing(lab, machine)?;
    // As often as one likes.
    let line = format!("{SOURCE}/ployzctl daemon uninstall");
    root(lab, machine, &line)?.success()?;
    Ok(())
}

fn refuses_to_go(lab: &Lab, machine: u8) -> Outcome {
    let refused = document(&root(lab, machine, "ployzctl --json daemon uninstall")?)?;
    ensure!(refused["code"] == "CONFLICT", "{refused}");
    ensure!(
        refused["hint"].to_string().contains("machine rm"),
        "{refused}"
    );
    root(lab, machine, "ployzctl mesh ready")?.success()?;
    Ok(())
}

fn knows_of_nothing(lab: &Lab, machine: u8) -> Outcome {
    // It forgets what nobody refers to any more in its own time.
    wait_until("systemd to know of no unit", PATIENCE, || {
        root(
            lab,
            machine,
            "systemctl list-units --all --no-legend 'ployz*'",
        )
        .is_ok_and(|units| units.stdout.is_empty())
    })?;
    let processes = root(lab, machine, "pgrep -l '^(ployzd|nats)'")?;
    ensure!(processes.stdout.is_empty(), "{processes}");
    Ok(())
}

fn has_no_traces(lab: &Lab, machine: u8) -> Outcome {
    let left = root(lab, machine, &format!("sh -c '{TRACES}'"))?.stdout;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

fn install(lab: &Lab, machine: u8, flags: &str) -> Result<Value> {
    let line = format!("{SOURCE}/ployzctl --json daemon install {flags}");
    document(&root(lab, machine, &line)?)
}

fn wait_ready(lab: &Lab) -> Outcome {
    wait_until("the first machine to be ready", PATIENCE, || {
        root(lab, 1, "ployzctl mesh ready").is_ok_and(|it| it.succeeded())
    })
}

fn main_pid(lab: &Lab, unit: &str) -> Result<String> {
    let line = format!("systemctl show --property MainPID --value {unit}");
    Ok(root(lab, 1, &line)?.success()?.stdout.trim().to_owned())
}

fn root(lab: &Lab, machine: u8, line: &str) -> Result<Finished> {
    lab.ssh(machine, &format!("sudo {line}"))
}

fn document(finished: &Finished) -> Result<Value> {
    serde_json::from_str(&finished.stdout).with_context(|| finished.to_string())
}
