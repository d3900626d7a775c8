//! A running WireGuard daemon.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{PATIENCE, mortal, words};
use crate::contender::ployzd;
use crate::stage::Stage;
use crate::uapi::Uapi;
use crate::wait::{wait_for, wait_until};
use crate::{Contender, Netns};

/// A daemon that has nothing left to send must not keep its operator waiting.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Daemon {
    contender: Contender,
    interface: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Daemon {
    /// Starts the implementation under test and waits until it is ready.
    pub fn start(stage: &Stage, netns: &Netns) -> Result<Self> {
        Self::start_as(stage, netns, stage.contender(), &stage.interface(), "")
    }

    /// Starts any implementation, on a given interface, with more flags.
    pub fn start_as(
        stage: &Stage,
        netns: &Netns,
        contender: Contender,
        interface: &str,
        flags: &str,
    ) -> Result<Self> {
        Self::spawn(
            stage,
            netns,
            contender,
            interface,
            &contender.argv(interface, &words(flags)),
        )
    }

    /// Starts `ployzd` behind another command, with the backend of its own choice.
    pub fn start_behind(stage: &Stage, netns: &Netns, prefix: &[String]) -> Result<Self> {
        let interface = stage.interface();
        let daemon = [&ployzd().display().to_string(), "dataplane", &interface].map(str::to_owned);
        let argv = [prefix, &daemon].concat();
        Self::spawn(stage, netns, stage.contender(), &interface, &argv)
    }

    fn spawn(
        stage: &Stage,
        netns: &Netns,
        contender: Contender,
        interface: &str,
        argv: &[String],
    ) -> Result<Self> {
        let argv = netns.argv(argv);
        let stdout = stage.log(&format!("{interface}-{}-stdout", contender.name()));
        let stderr = stage.log(&format!("{interface}-{}-stderr", contender.name()));
        let child = mortal(&argv)
            .envs(contender.environment().iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| argv.join(" "))?;
        let mut daemon = Self {
            contender,
            interface: interface.to_owned(),
            child,
            stdout,
            stderr,
        };
        daemon.wait_ready(netns)?;
        Ok(daemon)
    }

    #[must_use]
    pub fn contender(&self) -> Contender {
        self.contender
    }

    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    #[must_use]
    pub fn uapi(&self) -> Uapi {
        Uapi::new(&self.interface)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    #[must_use]
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// Resident memory, in KiB.
    pub fn memory_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next());
        kib.and_then(|kib| kib.parse().ok()).context("no VmRSS")
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid().try_into()?), signal)?)
    }

    /// Asks it to stop and holds it to the promise: exit 0, interface and socket gone.
    pub fn stop(mut self, signal: Signal, netns: &Netns) -> Result<()> {
        self.signal(signal)?;
        let status = self.wait_exit(STOP_PATIENCE)?;
        ensure!(
            status.code() == Some(0),
            "{} ended with {status} (signal {:?}) on {signal}",
            self.contender.name(),
            status.signal()
        );
        ensure!(
            !self.uapi().path().exists(),
            "the socket outlived the daemon"
        );
        ensure!(
            !netns.has_link(&self.interface),
            "the interface outlived the daemon"
        );
        Ok(())
    }

    fn wait_exit(&mut self, patience: Duration) -> Result<ExitStatus> {
        let what = format!("{} to exit", self.contender.name());
        wait_for(what, patience, || self.child.try_wait().transpose())?.context("wait")
    }

    fn wait_ready(&mut self, netns: &Netns) -> Result<()> {
        let what = format!(
            "{} on {} to be ready",
            self.contender.name(),
            self.interface
        );
        let mut died = None;
        wait_until(what, PATIENCE, || {
            died = self.child.try_wait().ok().flatten();
            died.is_some() || self.is_ready(netns)
        })?;
        if let Some(status) = died {
            bail!(
                "{} ended with {status}: {}",
                self.contender.name(),
                self.stderr()
            );
        }
        Ok(())
    }

    fn is_ready(&self, netns: &Netns) -> bool {
        let said_so = !self.contender.is_ployzd() || self.stdout().lines().any(|it| it == "ready");
        said_so && self.uapi().get().is_ok() && netns.has_link(&self.interface)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_alive() {
            // The polite way first: an implementation that is killed leaves its socket behind.
            let _already_gone = self.signal(Signal::SIGTERM);
            if self.wait_exit(STOP_PATIENCE).is_err() {
                let _already_gone = self.child.kill();
                let _reaped = self.child.wait();
            }
        }
        let _already_gone = fs::remove_file(self.uapi().path());
    }
}
