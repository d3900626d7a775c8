//! Running a program to its end, with a deadline and with its output at hand.

use std::fmt;
use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait::wait_for;

/// Generous for everything that is not traffic; traffic states its own.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status.success()
    }

    /// Turns an exit code other than zero into an error that shows both streams.
    pub fn success(self) -> Result<Self> {
        if !self.succeeded() {
            bail!("{self}");
        }
        Ok(self)
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ended with {}", self.command, self.status)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n{name}: {}", text.trim())?;
            }
        }
        Ok(())
    }
}

/// Splits a command line at white space. Words with spaces in them have no place in these tests.
#[must_use]
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// A program that dies with the thread that started it, so that no run leaves one behind.
#[must_use]
pub fn mortal(argv: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).args(argv);
    command
}

/// Runs to the end, or kills it at the deadline and fails.
pub fn run(argv: &[String], stdin: &[u8], patience: Duration) -> Result<Finished> {
    let line = argv.join(" ");
    let mut child = mortal(argv)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{line}`"))?;
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    if let Some(mut pipe) = child.stdin.take() {
        // A program that ends without reading its input is judged by its exit code.
        let _unread = pipe.write_all(stdin);
    }
    let ended = wait_for(format!("`{line}` to end"), patience, || {
        child.try_wait().transpose()
    });
    if ended.is_err() {
        let _already_gone = child.kill();
        child.wait()?;
    }
    Ok(Finished {
        command: line,
        status: ended??,
        stdout: collect(stdout),
        stderr: collect(stderr),
    })
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _cut_short = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn collect(reader: Option<thread::JoinHandle<Vec<u8>>>) -> String {
    let bytes = reader
        .and_then(|reader| reader.join().ok())
        .unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
