//! A running daemon of a contender.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::netns::Namespace;
use crate::{clock, console, leftovers, process};

const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(3);

pub(crate) struct Daemon {
    child: Child,
    name: String,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` in `namespace`; it need not be ready when this returns.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        namespace: &Namespace,
        interface: &str,
        log: &Path,
    ) -> Result<Self> {
        let socket = PathBuf::from(format!("/var/run/wireguard/{interface}.sock"));
        leftovers::note_socket(&socket);
        let output = File::create(log).with_context(|| log.display().to_string())?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = namespace.spawn(&mut command)?;
        Ok(Self {
            child,
            name: name.to_owned(),
            socket,
            log: log.to_owned(),
        })
    }

    /// Returns as soon as the control socket accepts a connection.
    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        let ready = clock::poll(START_LIMIT, || {
            if UnixStream::connect(&self.socket).is_ok() {
                return Some(Ok(()));
            }
            let status = self.child.try_wait().ok().flatten()?;
            Some(Err(status))
        });
        match ready {
            Some(Ok(())) => Ok(()),
            Some(Err(status)) => bail!("{} ended with {status}: {}", self.name, self.last_words()),
            None => bail!(
                "{} is not ready after {START_LIMIT:?}: {}",
                self.name,
                self.last_words()
            ),
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        process::pid_of(&self.child).as_raw()
    }

    /// Fails with the daemon's last words if it is no longer running.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} died with {status}: {}", self.name, self.last_words()),
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        let last: Vec<&str> = lines.into_iter().rev().collect();
        format!("{} (all of it in {})", last.join(" / "), self.log.display())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !process::stop(&mut self.child, STOP_LIMIT) {
            console::progress(&format!(
                "{} did not end with success on SIGTERM",
                self.name
            ));
        }
        leftovers::remove_socket(&self.socket);
    }
}
