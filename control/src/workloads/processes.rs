//! Workloads as processes, where there is no systemd. They outlive this daemon, and the next one adopts them.
//!
//! ```text
//!   workloads/<instance>/process.json   which process it is
//!                        status         how it ended, written by the shell around it, since only a parent learns that
//!                        log, log.1     what it writes
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use ployz_api::{InstanceId, Program};
use ployz_core::Seen;
use tokio::process::Command;

use crate::host::error::HostError;
use crate::host::files::DataDirectory;
use crate::host::process::Process;
use crate::host::tasks::TaskGroup;
use crate::workloads::error::WorkloadError;
use crate::workloads::job::{Job, LOGS_LEN_MAX, directory, last_lines};

/// The time that a workload has to end after SIGTERM.
const STOP_WAIT: Duration = Duration::from_secs(10);
const STOP_POLL: Duration = Duration::from_millis(20);
/// A log of this length is moved aside and replaces the one before it: logs take twice this, and a second's output.
const LOG_LEN_MAX: u64 = 4 << 20;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Mounts volumes, runs the command and writes its exit status. It traps SIGTERM, and so lives as long as the command.
const AROUND: &str = r#"
umask 022
trap : TERM
status=$1
shift
while [ "$1" != -- ]; do
  mkdir -p "$2" && mount --bind "$1" "$2" || exit 1
  shift 2
done
/bin/sh -c "$2"
echo $? >"$status.new" && mv "$status.new" "$status"
"#;

#[derive(Debug)]
pub(super) struct Processes {
    files: Rc<DataDirectory>,
    /// Waits for the ends of the processes that this daemon has started.
    reaper: TaskGroup,
}

impl Processes {
    pub(super) fn new(files: Rc<DataDirectory>) -> Self {
        Self {
            files,
            reaper: TaskGroup::default(),
        }
    }

    pub(super) fn observe(&self, ids: &[InstanceId]) -> BTreeMap<InstanceId, Seen> {
        ids.iter().map(|id| (*id, self.observe_one(*id))).collect()
    }

    pub(super) fn start(&self, job: &Job<'_>) -> Result<(), WorkloadError> {
        let (id, spec) = (job.record.id, &job.record.spec);
        let Program::Exec(command) = &spec.program else {
            return Err(WorkloadError::Runtime {
                runtime: "host",
                programs: "containers",
            });
        };
        self.files.remove(&file(id, "status"))?;
        let path = self.files.path(&file(id, "log"));
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(HostError::file("open", &path))?;
        let stdout = log.try_clone().map_err(HostError::file("open", &path))?;
        let mut child = self
            .around(job)
            .args(["--", command])
            .env_clear()
            .env("PATH", PATH)
            .env("PLOYZ_ADDRESS", job.address.to_string())
            .envs(job.environment())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log)
            // Signals to the daemon's group must not reach it, and a signal to its own group reaches all of its
            // processes.
            .process_group(0)
            .spawn()
            .map_err(WorkloadError::Start)?;
        let pid = child.id().ok_or(WorkloadError::EndedAtOnce)?;
        if let Some(process) = Process::of(pid) {
            self.files.write(&file(id, "process.json"), &process)?;
        }
        self.reaper.spawn(async move {
            let _written_down = child.wait().await;
        });
        Ok(())
    }

    pub(super) async fn stop(&self, id: InstanceId) -> Result<(), WorkloadError> {
        let Some(process) = self.running(id) else {
            return Ok(());
        };
        let Ok(pid) = i32::try_from(process.pid) else {
            return Ok(());
        };
        let signal = |signal| killpg(Pid::from_raw(pid), signal);
        let _already_gone = signal(Signal::SIGTERM);
        let gone = async {
            while process.is_alive() {
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        let _stubborn = tokio::time::timeout(STOP_WAIT, gone).await;
        // And processes that it has left behind.
        let _already_gone = signal(Signal::SIGKILL);
        Ok(())
    }

    pub(super) fn logs(&self, id: InstanceId, lines: u32) -> Result<Vec<String>, WorkloadError> {
        let before = tail(&self.files.path(&file(id, "log.1")))?;
        let text = before + &tail(&self.files.path(&file(id, "log")))?;
        let first = text.len().saturating_sub(LOGS_LEN_MAX);
        Ok(last_lines(&text[text.ceil_char_boundary(first)..], lines))
    }

    fn observe_one(&self, id: InstanceId) -> Seen {
        if self.running(id).is_some() {
            self.bound_log(id);
            return Seen::Running;
        }
        let status = fs::read_to_string(self.files.path(&file(id, "status"))).ok();
        match status.as_deref().map(str::trim) {
            Some("0") => Seen::Succeeded,
            Some(_) => Seen::Failed,
            None if self.files.path(&file(id, "process.json")).exists() => Seen::Failed,
            None => Seen::Nothing,
        }
    }

    fn running(&self, id: InstanceId) -> Option<Process> {
        let status = self.files.path(&file(id, "status"));
        if status.exists() {
            return None;
        }
        let noted = self.files.read::<Process>(&file(id, "process.json"));
        match noted.ok().flatten() {
            Some(process) => process.is_alive().then_some(process),
            // The daemon may have ended between start and record. No other process has this file as an argument.
            None => Process::with_argument(status.as_os_str()),
        }
    }

    /// The command around the workload's.
    fn around(&self, job: &Job<'_>) -> Command {
        let status = self.files.path(&file(job.record.id, "status"));
        let mut command = if job.volumes.is_empty() {
            Command::new("/bin/sh")
        } else {
            // Its mounts must not be visible to the host.
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "--", "/bin/sh"]);
            unshare
        };
        command.args(["-c", AROUND, "ployz"]).arg(status);
        for (directory, place) in &job.volumes {
            command.arg(directory).arg(place);
        }
        command
    }

    /// Truncates the log in place, as the process writes to the file itself.
    fn bound_log(&self, id: InstanceId) {
        let [log, before] = ["log", "log.1"].map(|name| self.files.path(&file(id, name)));
        let is_long = fs::metadata(&log).is_ok_and(|it| it.len() > LOG_LEN_MAX);
        if is_long && let Err(error) = set_aside(&log, &before) {
            tracing::warn!(%id, %error, "cannot truncate a workload's log");
        }
    }
}

fn set_aside(log: &Path, before: &PathBuf) -> std::io::Result<()> {
    fs::copy(log, before)?;
    OpenOptions::new().write(true).open(log)?.set_len(0)
}

fn file(id: InstanceId, name: &str) -> String {
    format!("{}/{name}", directory(id))
}

/// The end of a file; empty if it does not exist.
fn tail(path: &Path) -> Result<String, HostError> {
    let failed = |error| HostError::file("read", path)(error);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(failed(error)),
    };
    let len = file.metadata().map_err(failed)?.len();
    let from = SeekFrom::Start(len.saturating_sub(LOGS_LEN_MAX as u64));
    file.seek(from).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut rest = file.take(LOGS_LEN_MAX as u64);
    rest.read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
