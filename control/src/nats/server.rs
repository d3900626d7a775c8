//! The supervised server: started once, adopted by later daemons, and restarted when it has ended.

use std::cell::OnceCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::Signal;
use ployz_api::StorageState;
use serde_json::Value;
use tokio::process::Command;

use crate::host::error::HostError;
use crate::host::files::DataDirectory;
use crate::host::process::Process;
use crate::host::tasks::TaskGroup;
use crate::nats::error::NatsError;
use crate::nats::log::Log;
use crate::nats::settings::Settings;
use crate::nats::unit::Unit;
use crate::nats::version::Version;

/// The directory of the server's files.
pub(crate) const DIRECTORY: &str = "nats";
/// The same for the server of the next store.
pub(crate) const NEXT_DIRECTORY: &str = "nats-next";
/// The files of the former store, which stay until the current one is complete.
pub(crate) const FORMER_DIRECTORY: &str = "nats-former";
const PROCESS_FILE: &str = "process.json";
const CONFIG_FILE: &str = "config.json";
const LOG_FILE: &str = "log";

/// The interval at which the server is checked.
const POLL: Duration = Duration::from_secs(1);
/// The longest wait before a restart. With the time that clients take to reconnect, it is half of what the store may
/// take to recover.
const RESTART_WAIT_MAX: Duration = Duration::from_secs(5);
/// The server flushes to disk when it stops.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// A server, its program and its files.
#[derive(Debug)]
pub(crate) struct NatsServer {
    files: Rc<DataDirectory>,
    directory: &'static str,
    program: PathBuf,
    /// The unit that runs it; without one, it is a process of this daemon.
    unit: Option<Unit>,
    version: OnceCell<Version>,
    /// Waits for the end of the process that was started here. One that outlives this value is reaped by the runtime.
    reaper: TaskGroup,
}

/// The certificates of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Certificates<'a> {
    pub(crate) ca_pem: &'a str,
    pub(crate) certificate_pem: &'a str,
    pub(crate) key_pem: &'a str,
}

impl NatsServer {
    /// A server of this program, run by this unit or, without one, as a process of this daemon. Nothing is started, and
    /// the program need not exist yet.
    pub(crate) fn new(files: Rc<DataDirectory>, program: &Path, unit: Option<Unit>) -> Self {
        Self {
            files,
            directory: DIRECTORY,
            program: program.to_owned(),
            unit,
            version: OnceCell::new(),
            reaper: TaskGroup::default(),
        }
    }

    /// The server of the next store, beside the current one.
    pub(crate) fn next(files: Rc<DataDirectory>, program: &Path) -> Self {
        Self {
            directory: NEXT_DIRECTORY,
            ..Self::new(files, program, None)
        }
    }

    /// Asks the program for its version, once, and refuses a server that is too old.
    pub(crate) async fn version(&self) -> Result<Version, NatsError> {
        if let Some(version) = self.version.get() {
            return Ok(*version);
        }
        let version = Version::of(&self.program).await?;
        Ok(*self.version.get_or_init(|| version))
    }

    /// Writes everything that the server needs to start.
    pub(crate) fn set_up(
        &self,
        settings: &Settings,
        certificates: Certificates<'_>,
    ) -> Result<(), NatsError> {
        self.files.make_directory(self.directory)?;
        self.write_certificates(certificates)?;
        self.configure(settings)
    }

    /// Writes the certificates, which the server reads when it starts.
    pub(crate) fn write_certificates(
        &self,
        certificates: Certificates<'_>,
    ) -> Result<(), NatsError> {
        for (name, text) in [
            ("ca.pem", certificates.ca_pem),
            ("certificate.pem", certificates.certificate_pem),
            ("key.pem", certificates.key_pem),
        ] {
            self.files.write_bytes(&self.file(name), text.as_bytes())?;
        }
        Ok(())
    }

    /// Writes the configuration, and has a running server reload it.
    pub(crate) fn configure(&self, settings: &Settings) -> Result<(), NatsError> {
        let (file, rendered) = (self.file(CONFIG_FILE), settings.render());
        // The signal would end a server that has just been started.
        if self.files.read::<Value>(&file).ok().flatten().as_ref() == Some(&rendered) {
            return Ok(());
        }
        self.files.write(&file, &rendered)?;
        if let Some(process) = self.running() {
            process
                .signal(Signal::SIGHUP)
                .map_err(NatsError::signal("reload"))?;
        }
        Ok(())
    }

    /// Starts the server, unless it runs.
    pub(crate) async fn start(&self) -> Result<(), NatsError> {
        // Traffic waits for this, and the version of a running server does not matter.
        if let Some(process) = self.running() {
            tracing::info!(pid = process.pid, "nats-server adopted");
            self.files.write(&self.file(PROCESS_FILE), &process)?;
            return Ok(());
        }
        let version = self.version().await?;
        let pid = match &self.unit {
            Some(unit) => unit.start().await?,
            None => self.spawn()?,
        };
        let process = Process::of(pid).ok_or_else(ended_at_once)?;
        self.files.write(&self.file(PROCESS_FILE), &process)?;
        tracing::info!(pid, %version, "nats-server started");
        Ok(())
    }

    /// Restarts the server whenever it has ended. Never returns.
    pub(crate) async fn supervise(&self) {
        let mut wait = POLL;
        loop {
            tokio::time::sleep(wait).await;
            if self.running().is_some() {
                wait = POLL;
                continue;
            }
            tracing::warn!("nats-server has ended; starting it");
            if let Err(error) = self.start().await {
                tracing::warn!(%error, "cannot start nats-server");
            }
            wait = (wait * 2).min(RESTART_WAIT_MAX);
        }
    }

    /// The server's log, from now on.
    pub(crate) fn log(&self) -> Log {
        Log::from_now_on(self.files.path(&self.file(LOG_FILE)))
    }

    /// Stops the server, and removes its files.
    pub(crate) async fn destroy(&self) -> Result<(), NatsError> {
        self.stop().await?;
        Ok(self.files.remove(self.directory)?)
    }

    /// Stops the server. Its files stay.
    pub(crate) async fn stop(&self) -> Result<(), NatsError> {
        self.stop_within(STOP_WAIT).await
    }

    /// Stops the server within this time. What it has acknowledged is on the disk; it may be killed while it hands its
    /// part in the cluster over.
    pub(crate) async fn stop_within(&self, patience: Duration) -> Result<(), NatsError> {
        if let Some(unit) = &self.unit {
            unit.stop().await?;
        }
        // A process of this daemon, also from before there was a unit.
        if let Some(process) = self.running() {
            process
                .signal(Signal::SIGTERM)
                .map_err(NatsError::signal("stop"))?;
            let gone = async {
                while process.is_alive() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            if tokio::time::timeout(patience, gone).await.is_err() {
                process
                    .signal(Signal::SIGKILL)
                    .map_err(NatsError::signal("kill"))?;
            }
        }
        Ok(())
    }

    /// Kills the process, as a power cut would.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        if let Some(process) = self.running() {
            let _already_gone = process.signal(Signal::SIGKILL);
        }
    }

    /// The id of its process, if it runs.
    #[cfg(test)]
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running().map(|process| process.pid)
    }

    /// Whether the server runs.
    pub(crate) fn is_running(&self) -> bool {
        self.running().is_some()
    }

    /// The state that `status` shows.
    pub(crate) async fn state(&self) -> StorageState {
        let version = self.version().await;
        match self.running() {
            Some(process) => StorageState::Running {
                pid: process.pid,
                version: version.map_or_else(|_| "unknown".to_owned(), |it| it.to_string()),
            },
            None => StorageState::Down,
        }
    }

    /// The last lines of its output and log, for a server that does not come up.
    pub(crate) fn last_words(&self) -> String {
        ["stderr", LOG_FILE]
            .into_iter()
            .filter_map(|name| std::fs::read_to_string(self.files.path(&self.file(name))).ok())
            .filter_map(|text| text.lines().last().map(str::to_owned))
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Starts a process that outlives this daemon.
    fn spawn(&self) -> Result<u32, NatsError> {
        let log = self.files.path(&self.file("stderr"));
        let stderr = File::create(&log).map_err(HostError::file("create", &log))?;
        let mut child = Command::new(from_anywhere(&self.program))
            .arg("--config")
            .arg(self.config_file())
            .current_dir(self.files.path(self.directory))
            // The supervisor did not start it, and must not take its notifications for the daemon's.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Its output until it has read where to log.
            .stderr(stderr)
            // A signal to the daemon's group, such as Ctrl-C, must not reach it.
            .process_group(0)
            .spawn()
            .map_err(|cause| NatsError::Start {
                program: self.program.clone(),
                cause,
            })?;
        let pid = child.id().ok_or_else(ended_at_once)?;
        self.reaper.spawn(async move {
            if let Ok(status) = child.wait().await {
                tracing::info!(pid, %status, "nats-server ended");
            }
        });
        Ok(pid)
    }

    fn running(&self) -> Option<Process> {
        let noted = self
            .files
            .read::<Process>(&self.file(PROCESS_FILE))
            .ok()
            .flatten();
        noted.filter(Process::is_alive).or_else(|| {
            // systemd has restarted it, or the file is damaged. No other process has this configuration as its
            // argument.
            Process::with_argument(self.config_file().as_os_str())
        })
    }

    fn config_file(&self) -> PathBuf {
        absolute(&self.files.path(&self.file(CONFIG_FILE)))
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }
}

fn ended_at_once() -> NatsError {
    NatsError::EndedAtOnce("nats-server".to_owned())
}

/// A program's path for a start in another directory. A bare name is searched in PATH, and stays as it is.
fn from_anywhere(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        absolute(program)
    } else {
        program.to_owned()
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
