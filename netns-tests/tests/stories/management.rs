//! An operator from afar: contexts, credentials, roles, several endpoints, and machines that are asked through others.
//!
//! ```text
//!   m1 founds ──┐
//!   m2 joins  ──┼── switch ── m4, the operator's host: no daemon, and in no network
//!   m3 joins  ──┘
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ployz_netns_tests::cluster::{Machine, Segment, text};
use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::{now, wait_until};
use ployz_netns_tests::{Backend, Outcome, Stage, tell};

/// Longer than a watch takes to say so, and shorter than a listing would.
const REVOCATION_WAIT: Duration = Duration::from_secs(2);
/// One endpoint that is silent, and an answer.
const FAILOVER_WAIT: Duration = Duration::from_secs(4);

const ENDPOINTS: [&str; 3] = ["10.0.0.1:51821", "10.0.0.2:51821", "10.0.0.3:51821"];

/// The operator's host and what is kept there.
struct Operator<'a> {
    host: &'a Machine,
    config: PathBuf,
}

impl Operator<'_> {
    fn ctl(&self, arguments: &str) -> String {
        format!("--config {} {arguments}", self.config.display())
    }

    fn code(&self, arguments: &str) -> Result<String> {
        self.host.code(&self.ctl(arguments))
    }

    fn expect(&self, arguments: &str, code: &str) -> Result<()> {
        let got = self.code(arguments)?;
        ensure!(got == code, "`{arguments}`: {got}, expected {code}");
        Ok(())
    }
}

#[test]
fn a_network_is_run_from_afar() -> Outcome {
    tell(Backend::IoUring, |stage| {
        let segment = Segment::new(stage)?;
        let mut machines = segment.running_machines(stage, 3)?;
        let host = segment.machine(stage, 4)?;
        ensure!(machines[0].code("mesh init acme")? == "OK");
        for joiner in &machines[1..] {
            joiner.join(&machines[0])?;
        }
        wait_until("m1 to hear from everybody", PATIENCE, || {
            heard_from(&machines[0]).is_ok_and(|heard| heard == 3)
        })?;
        let operator = Operator {
            host: &host,
            config: stage.place("operator").join("config.toml"),
        };
        let credentials = import_credentials(stage, &machines[0], &operator)?;
        contexts_are_kept(&operator)?;
        roles_hold_everywhere(&operator)?;
        through_another(&operator, &machines)?;
        root_is_known_as_the_machine(&machines)?;
        endpoints_are_tried_in_order(&operator)?;
        a_time_that_is_over(stage, &machines[0], &operator)?;
        revoked_at_once(stage, &mut machines, &operator, &credentials)
    })
}

fn heard_from(machine: &Machine) -> Result<usize> {
    let list = machine.json("machine ls")?;
    let rows = list["payload"]["rows"].as_array().context("rows")?;
    let heard = |row: &&serde_json::Value| row["observed_age_secs"].is_u64();
    Ok(rows.iter().filter(heard).count())
}

/// One of each role; the ids of their credentials.
fn import_credentials(
    stage: &Stage,
    founder: &Machine,
    operator: &Operator<'_>,
) -> Result<Vec<(String, String)>> {
    let directory = stage.place("credentials");
    fs::create_dir_all(&directory)?;
    let mut ids = Vec::new();
    for role in ["admin", "operator", "reader"] {
        let file = directory.join(role);
        let id = create(founder, role, &format!("--name {role}"), &file)?;
        let mode = fs::metadata(&file)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{mode:o}");
        operator.expect(
            &format!("context import {} --name {role}", file.display()),
            "OK",
        )?;
        ids.push((role.to_owned(), id));
    }
    let again = format!(
        "credential create --role reader --output {}",
        directory.join("reader").display()
    );
    ensure!(
        founder.code(&again)? == "INVALID_ARGUMENT",
        "nothing is overwritten"
    );
    let list = founder.json("credential list")?;
    let listed = list["payload"]["credentials"].as_array().map(Vec::len);
    ensure!(listed == Some(3), "{list}");
    Ok(ids)
}

fn create(founder: &Machine, role: &str, flags: &str, file: &Path) -> Result<String> {
    let document = founder.json(&format!(
        "credential create --role {role} {flags} --output {}",
        file.display()
    ))?;
    ensure!(document["ok"] == true, "{document}");
    Ok(text(&document, "/payload/credential_id"))
}

fn contexts_are_kept(operator: &Operator<'_>) -> Result<()> {
    let mode = fs::metadata(&operator.config)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "{mode:o}");
    let show = operator.host.json(&operator.ctl("context show"))?;
    ensure!(
        text(&show, "/payload/name") == "admin",
        "the first is current: {show}"
    );
    let endpoints = show["payload"]["endpoints"].as_array().map(Vec::len);
    ensure!(endpoints == Some(3), "one for each machine: {show}");
    ensure!(!show.to_string().contains("PRIVATE"), "{show}");
    for (arguments, code) in [
        ("context rename admin chief", "OK"),
        ("--context chief machine ls", "OK"),
        ("context use reader", "OK"),
        ("machine invite create", "FORBIDDEN"),
        ("context export chief", "OK"),
        ("context rm nobody", "INVALID_ARGUMENT"),
        ("--context nobody machine ls", "INVALID_ARGUMENT"),
        ("context rename chief admin", "OK"),
        ("context use local", "OK"),
        ("machine ls", "DAEMON_UNREACHABLE"),
        (
            "--connect quic://10.0.0.1:51821 machine ls",
            "INVALID_ARGUMENT",
        ),
    ] {
        operator.expect(arguments, code)?;
    }
    Ok(())
}

/// Whichever machine is asked: the role is the caller's own, also where the answer is another machine's.
fn roles_hold_everywhere(operator: &Operator<'_>) -> Result<()> {
    let revoke = "machine invite revoke 01JX3Z5E9V5R2K7Q8W4N6T1M0B";
    let table = [
        //                           admin             operator          reader
        ("status", ["OK", "OK", "OK"]),
        ("machine ls", ["OK", "OK", "OK"]),
        ("machine inspect m2", ["OK", "OK", "OK"]),
        ("machine invite create", ["OK", "OK", "FORBIDDEN"]),
        ("machine invite list", ["OK", "OK", "FORBIDDEN"]),
        (revoke, ["INVITE_INVALID", "INVITE_INVALID", "FORBIDDEN"]),
        ("credential list", ["OK", "FORBIDDEN", "FORBIDDEN"]),
        ("mesh init acme", ["OK", "FORBIDDEN", "FORBIDDEN"]),
    ];
    for endpoint in ENDPOINTS {
        for (command, codes) in table {
            for (role, code) in ["admin", "operator", "reader"].into_iter().zip(codes) {
                let asked = format!("--context {role} --connect quic://{endpoint} {command}");
                operator.expect(&asked, code)?;
            }
        }
    }
    Ok(())
}

fn through_another(operator: &Operator<'_>, machines: &[Machine]) -> Result<()> {
    for by in ENDPOINTS {
        for machine in machines {
            let asked = format!(
                "--context reader --connect quic://{by} --on {} status",
                machine.name
            );
            let status = operator.host.json(&operator.ctl(&asked))?;
            ensure!(
                text(&status, "/payload/name") == machine.name,
                "by {by}: {status}"
            );
        }
    }
    for (arguments, code) in [
        ("--on m1 machine invite create", "FORBIDDEN"),
        ("--on m9 status", "MACHINE_NOT_FOUND"),
        ("--on m status", "MACHINE_AMBIGUOUS"),
    ] {
        operator.expect(&format!("--context reader {arguments}"), code)?;
    }
    Ok(())
}

/// Root of a machine is an admin there, and no more than a machine elsewhere; unless the network's authority is root's.
fn root_is_known_as_the_machine(machines: &[Machine]) -> Result<()> {
    let [founder, second, _] = machines else {
        unreachable!()
    };
    for (machine, arguments, code) in [
        (second, "--on m1 machine ls", "OK"),
        (second, "--on m3 status", "OK"),
        (second, "--on m1 machine invite create", "FORBIDDEN"),
        (second, "--on m1 credential list", "FORBIDDEN"),
        (founder, "--on m2 status", "OK"),
        (founder, "--on m2 mesh init acme", "OK"),
    ] {
        let got = machine.code(arguments)?;
        ensure!(got == code, "{} `{arguments}`: {got}", machine.name);
    }
    Ok(())
}

fn endpoints_are_tried_in_order(operator: &Operator<'_>) -> Result<()> {
    let silent = "--connect quic://10.0.0.99:51821";
    let asked = now();
    let arguments = format!("--context reader {silent} --connect quic://10.0.0.2:51821 status");
    let status = operator.host.json(&operator.ctl(&arguments))?;
    ensure!(text(&status, "/payload/name") == "m2", "{status}");
    ensure!(asked.elapsed() < FAILOVER_WAIT, "{:?}", asked.elapsed());
    let asked = now();
    let given_up = operator.host.ctl(&operator.ctl(&format!(
        "--context reader {silent} {silent} {silent} --timeout 3s status"
    )))?;
    ensure!(
        given_up.status.code() == Some(3) || given_up.stderr.contains("TIMEOUT"),
        "{given_up}"
    );
    ensure!(asked.elapsed() < FAILOVER_WAIT, "{:?}", asked.elapsed());
    Ok(())
}

fn a_time_that_is_over(stage: &Stage, founder: &Machine, operator: &Operator<'_>) -> Result<()> {
    let file = stage.place("brief");
    create(founder, "reader", "--ttl 2s", &file)?;
    operator.expect(
        &format!("context import {} --name brief", file.display()),
        "OK",
    )?;
    for endpoint in ENDPOINTS {
        let asked = format!("--context brief --connect quic://{endpoint} machine ls");
        wait_until(format!("{endpoint} to take it no more"), PATIENCE, || {
            operator.code(&asked).is_ok_and(|code| code == "FORBIDDEN")
        })?;
    }
    Ok(())
}

fn revoked_at_once(
    stage: &Stage,
    machines: &mut [Machine],
    operator: &Operator<'_>,
    credentials: &[(String, String)],
) -> Result<()> {
    let (_, id) = credentials
        .iter()
        .find(|(role, _)| role == "operator")
        .context("an operator")?;
    let begin = now();
    operator.expect(&format!("--context admin credential revoke {id}"), "OK")?;
    for endpoint in ENDPOINTS {
        wait_until(format!("{endpoint} to refuse it"), REVOCATION_WAIT, || {
            refused(operator, endpoint)
        })?;
    }
    show("a credential to be refused everywhere", begin.elapsed());
    let again = operator
        .host
        .json(&operator.ctl(&format!("--context admin credential revoke {id}")))?;
    ensure!(text(&again, "/message").contains("already"), "{again}");

    // Without the store, and after a restart: what is known lies on disk. The context has other endpoints to go to.
    machines[0].kill();
    operator.expect("--context reader machine ls", "OK")?;
    machines[1].kill();
    machines[1].start(stage)?;
    ensure!(refused(operator, ENDPOINTS[1]), "a restart forgave it");
    Ok(())
}

fn refused(operator: &Operator<'_>, endpoint: &str) -> bool {
    let asked = format!("--context operator --connect quic://{endpoint} machine ls");
    operator.code(&asked).is_ok_and(|code| code == "FORBIDDEN")
}

#[expect(clippy::print_stdout, reason = "a figure for whoever runs the story")]
fn show(what: &str, took: Duration) {
    println!("{what} took {took:.1?}");
}
