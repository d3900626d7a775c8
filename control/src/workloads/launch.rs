//! The launcher: a process of this program that becomes the command of a workload. As root it arranges the command's
//! file system, becomes the workload's user, and only then replaces itself by the shell. Everything that an operator
//! has said comes by stdin, and nothing of it is in the launcher's environment, its arguments or a property of a unit.
//!
//! ```text
//!   systemd ──────────────────────────────────────────▶ ployzd launch ──exec──▶ /bin/sh -c <command>
//!   ployzd ──▶ ployzd launch --status <file> ──spawn──▶ ployzd launch ──exec──▶ /bin/sh -c <command>
//!                 writes how the command ended, since only a parent learns that
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::prctl::set_no_new_privs;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use ployz_api::Secret;
use serde::{Deserialize, Serialize};

use crate::host::error::HostError;
use crate::host::files::DataDirectory;
use crate::workloads::error::WorkloadError;
use crate::workloads::job::{Job, directory};
use crate::workloads::mounts;

/// This program, also when another version has taken its place on the disk.
const OURSELVES: &str = "/proc/self/exe";
/// What is in them is people's.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// Group and others may read what a command writes, unless it says otherwise.
const UMASK: Mode = Mode::from_bits_truncate(0o022);

/// The arguments of `ployzd launch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File for the exit status of the command; without it, this process becomes the command.
    #[arg(long)]
    status: Option<PathBuf>,
}

/// A command, and what it runs in.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Launch {
    /// For `/bin/sh -c`.
    pub(super) command: String,
    pub(super) env: BTreeMap<String, Secret>,
    /// The user and group that the command runs as; root without a sandbox if there is none.
    pub(super) user: Option<u32>,
    /// Directories of volumes, by their paths in the workload.
    pub(super) volumes: BTreeMap<PathBuf, PathBuf>,
    /// Directories that are empty for the command.
    pub(super) hidden: Vec<PathBuf>,
}

impl Launch {
    fn of(job: &Job<'_>, command: &str, data: PathBuf) -> Self {
        let address = Secret::new(job.address.to_string());
        let given = job.environment();
        let given = given.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned())));
        let volumes = job.volumes.iter();
        let volumes = volumes.map(|(source, place)| (PathBuf::from(place), source.clone()));
        // Who is not in a sandbox sees everything.
        let hidden = job.user.map(|_| {
            let homes = HOMES.map(PathBuf::from);
            homes.into_iter().chain([data]).collect()
        });
        Self {
            command: command.to_owned(),
            env: [("PLOYZ_ADDRESS".to_owned(), address)]
                .into_iter()
                .chain(given)
                .collect(),
            user: job.user,
            volumes: volumes.collect(),
            hidden: hidden.unwrap_or_default(),
        }
    }
}

/// Writes what the launcher is to read, and returns the path.
pub(super) fn write(
    files: &DataDirectory,
    job: &Job<'_>,
    command: &str,
) -> Result<PathBuf, HostError> {
    let file = format!("{}/launch.json", directory(job.record.id));
    files.write(&file, &Launch::of(job, command, files.path("")))?;
    Ok(files.path(&file))
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<(), WorkloadError> {
    match &arguments.status {
        Some(status) => supervise(&[OURSELVES.into(), "launch".into()], status),
        None => become_command().map(|never| match never {}),
    }
}

/// Starts the launcher, and writes how the command ended.
fn supervise(launcher: &[OsString], status: &Path) -> Result<(), WorkloadError> {
    // A group is asked to end as a whole, and this process has to see how.
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.thread_block().map_err(refused("block SIGTERM"))?;
    let [program, words @ ..] = launcher else {
        return Err(WorkloadError::EndedAtOnce);
    };
    let child = Command::new(program).args(words).spawn();
    let ended = child.and_then(|mut child| child.wait());
    let ended = ended.map_err(WorkloadError::Start)?;
    let code = ended.code().or_else(|| Some(128 + ended.signal()?));
    let beside = status.with_extension("new");
    let written = fs::write(&beside, format!("{}\n", code.unwrap_or(1)))
        .and_then(|()| fs::rename(&beside, status));
    Ok(written.map_err(HostError::file("write", status))?)
}

/// Reads what is to be launched, and becomes it.
fn become_command() -> Result<Infallible, WorkloadError> {
    SigSet::all()
        .thread_unblock()
        .map_err(refused("unblock signals"))?;
    let launch: Launch = serde_json::from_reader(std::io::stdin().lock())
        .map_err(|cause| WorkloadError::Launch(cause.to_string()))?;
    umask(UMASK);
    let is_sandboxed = launch.user.is_some();
    if is_sandboxed || !launch.volumes.is_empty() {
        mounts::arrange(&launch.volumes, &launch.hidden, is_sandboxed)?;
    }
    if let Some(user) = launch.user {
        become_user(user)?;
    }
    let environment = launch.env.iter();
    let environment = environment.map(|(name, value)| (name, value.expose()));
    let error = Command::new("/bin/sh")
        .arg("-c")
        .arg(&launch.command)
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .exec();
    Err(WorkloadError::Start(error))
}

/// Gives root up for good: with the last user id that is root's go all capabilities, and no program gives any back.
fn become_user(user: u32) -> Result<(), WorkloadError> {
    set_no_new_privs().map_err(refused("forgo new privileges"))?;
    setgroups(&[]).map_err(refused("leave the groups of root"))?;
    let group = Gid::from_raw(user);
    setresgid(group, group, group).map_err(refused("take the workload's group"))?;
    let user = Uid::from_raw(user);
    setresuid(user, user, user).map_err(refused("become the workload's user"))
}

fn refused(action: &'static str) -> impl FnOnce(nix::errno::Errno) -> WorkloadError {
    move |cause| WorkloadError::Sandbox { action, cause }
}

/// The command line of the launcher, without arguments.
pub(super) fn command_line() -> Vec<OsString> {
    vec![OURSELVES.into(), "launch".into()]
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs::OpenOptions;

    use nix::unistd::dup2_stdout;

    use super::*;

    /// The test below as a launcher, with the same arguments. What the test harness has to say goes nowhere, and what
    /// the command writes goes to where the launcher's output does.
    const LAUNCHER: &str = r#"exec "$0" --exact "$1" --ignored --nocapture "$3" 3>&1 >/dev/null"#;
    const NAME: &str = "workloads::launch::tests::as_a_launcher";
    const OUTPUT: &str = "/proc/self/fd/3";

    pub(crate) fn command_line() -> Vec<OsString> {
        let ourselves = std::env::current_exe().unwrap();
        let words = ["/bin/sh", "-c", LAUNCHER].map(OsString::from);
        [&words[..], &[ourselves.into(), NAME.into()]].concat()
    }

    #[test]
    #[ignore = "other tests start it, as a process of its own"]
    fn as_a_launcher() {
        if !Path::new(OUTPUT).exists() {
            return;
        }
        let output = OpenOptions::new().append(true).open(OUTPUT).unwrap();
        dup2_stdout(output).unwrap();
        let last = std::env::args_os().next_back().map(PathBuf::from);
        match last.filter(|it| it.is_absolute()) {
            Some(status) => {
                supervise(&command_line(), &status).unwrap();
                // Before the harness has its say in the command's output.
                std::process::exit(0);
            }
            None => panic!("{}", become_command().unwrap_err()),
        }
    }
}
