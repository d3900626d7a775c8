//! Workloads as processes, where there is no systemd. They outlive this daemon, and the next one adopts them.
//!
//! ```text
//!   workloads/<instance>/process.json   the launcher that is the command's parent
//!                        status         how the command ended, written by that launcher
//!                        log, log.1     what it writes
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
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
use crate::workloads::launch;

/// The time that a workload has to end after SIGTERM.
const STOP_WAIT: Duration = Duration::from_secs(10);
const STOP_POLL: Duration = Duration::from_millis(20);
/// A log of this length is moved aside and replaces the one before it: logs take twice this, and a second's output.
const LOG_LEN_MAX: u64 = 4 << 20;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug)]
pub(super) struct Processes {
    files: Rc<DataDirectory>,
    /// The command line of the launcher.
    launcher: Vec<OsString>,
    /// Waits for the ends of the processes that this daemon has started.
    reaper: TaskGroup,
}

impl Processes {
    pub(super) fn new(files: Rc<DataDirectory>) -> Self {
        Self {
            files,
            launcher: launch::command_line(),
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
        let input = launch::write(&self.files, job, command)?;
        let input = File::open(&input).map_err(HostError::file("open", &input))?;
        let [program, words @ ..] = &*self.launcher else {
            return Err(WorkloadError::EndedAtOnce);
        };
        let mut child = Command::new(program)
            .args(words)
            .arg("--status")
            .arg(self.files.path(&file(id, "status")))
            // The command gets its environment from the launcher, which itself has nothing of it.
            .env_clear()
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(input)
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ployz_api::{Secret, WorkloadSpec};
    use ployz_core::{InstanceRecord, RECORD_VERSION};

    use super::*;
    use crate::testkit::{PATIENCE, run, wait_until};

    const ID: InstanceId = InstanceId::new(1, 1);

    /// A data directory that is removed at the end.
    struct Ground {
        path: PathBuf,
        files: Rc<DataDirectory>,
    }

    impl Ground {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ployz-{name}-{}", std::process::id()));
            let files = Rc::new(DataDirectory::open(&path).unwrap());
            files.make_directory(&directory(ID)).unwrap();
            Self { path, files }
        }

        fn processes(&self) -> Processes {
            Processes {
                launcher: launch::tests::command_line(),
                ..Processes::new(Rc::clone(&self.files))
            }
        }
    }

    impl Drop for Ground {
        fn drop(&mut self) {
            let _already_gone = fs::remove_dir_all(&self.path);
        }
    }

    fn record(program: Program) -> InstanceRecord {
        InstanceRecord {
            privileged: false,
            version: RECORD_VERSION,
            workload: "default/web".parse().unwrap(),
            id: ID,
            spec: WorkloadSpec {
                program,
                env: BTreeMap::from([("WORD".to_owned(), Secret::new("a  $B 'c'".to_owned()))]),
                volumes: BTreeMap::new(),
                publish: Vec::new(),
            },
            from: None,
        }
    }

    fn start(processes: &Processes, program: Program) -> Result<(), WorkloadError> {
        let record = record(program);
        processes.start(&Job {
            record: &record,
            volumes: Vec::new(),
            // Without a sandbox, tests need no root.
            user: None,
            address: Ipv4Addr::new(10, 0, 1, 1),
            subnet: "10.0.1.0/24".parse().unwrap(),
        })
    }

    fn command(text: &str) -> Program {
        Program::Exec(text.to_owned())
    }

    fn seen(processes: &Processes) -> Seen {
        processes.observe(&[ID])[&ID]
    }

    async fn ended(processes: &Processes) -> Seen {
        wait_until("the workload to end", PATIENCE, || {
            seen(processes) != Seen::Running
        })
        .await;
        seen(processes)
    }

    #[test]
    fn a_command_has_its_own_environment_and_no_other_and_its_end_is_known() {
        run(async {
            let ground = Ground::new("process-env");
            let processes = ground.processes();
            assert_eq!(seen(&processes), Seen::Nothing);
            let text = "echo \"$WORD|$PLOYZ_ADDRESS|$CARGO_PKG_NAME|$PWD\"; echo no >&2; exit 3";
            start(&processes, command(text)).unwrap();
            assert_eq!(ended(&processes).await, Seen::Failed);
            let lines = processes.logs(ID, 10).unwrap();
            assert_eq!(lines, ["a  $B 'c'|10.0.1.1||/", "no"]);
            // The end of the first is not the end of the second.
            start(&processes, command("echo again")).unwrap();
            assert_eq!(ended(&processes).await, Seen::Succeeded);
            assert_eq!(processes.logs(ID, 1).unwrap(), ["again"]);
            assert_eq!(processes.logs(InstanceId::new(2, 2), 1).unwrap(), [""; 0]);
            let image = start(&processes, Program::Image("web:1".to_owned())).unwrap_err();
            assert!(matches!(image, WorkloadError::Runtime { .. }), "{image}");
        });
    }

    /// The daemon ends and another one comes: the process goes on, is known by it, and is stopped by it.
    #[test]
    fn a_process_outlives_its_daemon_and_the_next_one_stops_it_with_all_that_it_has_started() {
        run(async {
            let ground = Ground::new("process-adopt");
            let first = ground.processes();
            start(&first, command("sleep 600 & echo $!; wait")).unwrap();
            wait_until("the child to be started", PATIENCE, || {
                first.logs(ID, 1).unwrap().len() == 1
            })
            .await;
            let child: u32 = first.logs(ID, 1).unwrap()[0].parse().unwrap();
            drop(first);
            let second = ground.processes();
            assert_eq!(seen(&second), Seen::Running);
            // Also when the daemon ended before it could write down which process it was.
            ground.files.remove(&file(ID, "process.json")).unwrap();
            assert_eq!(seen(&second), Seen::Running);
            assert!(Process::of(child).is_some());
            second.stop(ID).await.unwrap();
            assert_ne!(seen(&second), Seen::Running);
            wait_until("the child to be gone", PATIENCE, || {
                Process::of(child).is_none()
            })
            .await;
            second.stop(ID).await.unwrap();
        });
    }

    #[test]
    fn a_process_whose_end_nobody_has_written_down_has_failed() {
        run(async {
            let ground = Ground::new("process-lost");
            let processes = ground.processes();
            start(&processes, command("exec sleep 600")).unwrap();
            assert_eq!(seen(&processes), Seen::Running);
            let process = processes.running(ID).unwrap();
            let group = Pid::from_raw(i32::try_from(process.pid).unwrap());
            killpg(group, Signal::SIGKILL).unwrap();
            assert_eq!(ended(&processes).await, Seen::Failed);
        });
    }

    #[test]
    fn a_log_that_has_become_long_is_set_aside_and_read_on_across_the_cut() {
        run(async {
            let ground = Ground::new("process-log");
            let processes = ground.processes();
            let log = ground.files.path(&file(ID, "log"));
            let line = "ä".repeat(50) + "\n";
            let count = usize::try_from(LOG_LEN_MAX).unwrap() / line.len() + 1;
            fs::write(&log, line.repeat(count) + "last\n").unwrap();
            processes.bound_log(ID);
            assert_eq!(fs::metadata(&log).unwrap().len(), 0);
            fs::write(&log, "next\n").unwrap();
            processes.bound_log(ID);
            assert_eq!(fs::read(&log).unwrap(), b"next\n", "a short one stays");
            assert_eq!(processes.logs(ID, 2).unwrap(), ["last", "next"]);
            // No answer is longer than what fits, wherever the text is cut.
            let all = processes.logs(ID, u32::MAX).unwrap();
            assert!(all.iter().map(|it| it.len() + 1).sum::<usize>() <= LOGS_LEN_MAX);
            assert_eq!(all.last().unwrap(), "next");
        });
    }
}
