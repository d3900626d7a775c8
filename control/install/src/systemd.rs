//! The service manager, by its own tool.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use ployz_api::{Code, Failure};

/// Whether systemd is what runs services here (sd_booted(3)).
pub(crate) fn is_here() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Has `systemctl` do something. Every job in it has systemd's own deadline.
pub(crate) fn systemctl(arguments: &[&str]) -> Result<String, Failure> {
    run("systemctl", arguments)
}

/// Has systemd run something as a unit of its own.
pub(crate) fn systemd_run(arguments: &[&str]) -> Result<String, Failure> {
    run("systemd-run", arguments)
}

/// Runs a program, and tells what it says; its complaint if it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    let failed = |cause: &str| {
        let message = format!("{program} {}: {cause}", arguments.join(" "));
        Failure::new(Code::InstallFailed, message)
    };
    let output = output(program, arguments).map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(said.lines().next().unwrap_or_default()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts a program as a unit of its own, which outlives its starter and is collected when it has ended.
pub(crate) fn run_aside(unit: &str, command: &[&str]) -> Result<(), Failure> {
    let unit = format!("--unit={unit}");
    let arguments = [&[&unit, "--collect", "--quiet", "--"], command].concat();
    let refused = |cause: &str| {
        let message = format!("systemd-run {unit}: {cause}");
        Failure::new(Code::InstallFailed, message)
    };
    let output = output("systemd-run", &arguments).map_err(|error| refused(&error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(refused(said.lines().next().unwrap_or_default()))
}

/// Whether a unit runs.
pub(crate) fn is_active(unit: &str) -> bool {
    systemctl(&["is-active", "--quiet", unit]).is_ok()
}

/// The last thing that a unit's program has called an error, if it has just done so.
pub(crate) fn last_error(unit: &str) -> Option<String> {
    let arguments = [
        "--unit",
        unit,
        "--since",
        "-2min",
        "--output",
        "cat",
        "--no-pager",
    ];
    let output = output("journalctl", &arguments).ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("error: "))?;
    Some(line.to_owned())
}

fn output(program: &str, arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
}
