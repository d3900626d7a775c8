//! A host at the other end of ssh, and running shell scripts on it.
//!
//! The system's own `ssh` makes the connection, so that its configuration, agent, jump hosts and known hosts count. It
//! has no terminal: a question for a password or a confirmation fails.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use openssh::{ControlPersist, KnownHosts, Session, SessionBuilder, Stdio};
use ployz_api::{Code, Failure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::arguments::Target;

/// A host that has not answered by then is not there.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// The time for ssh and its agent on top of that.
const SESSION_WAIT: Duration = Duration::from_secs(30);
/// A host that has lost its power is given up after three of these.
const ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Should this client be killed, its connection goes after so many seconds.
const IDLE_SECS: NonZeroUsize = NonZeroUsize::new(60).unwrap();
/// The output of a script: JSON of a few machines at the most.
const OUTPUT_MAX: u64 = 1 << 20;
/// Lines that are kept of a script's stderr.
const STDERR_LINES: usize = 5;

/// How to get to hosts.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// The file with the secret key, where it is not the one that ssh takes by itself. ssh alone reads it.
    pub(crate) identity: Option<PathBuf>,
    pub(crate) port: Option<u16>,
    /// Accept the key of a host that ssh does not know.
    pub(crate) accept_new: bool,
}

/// A host that ssh has a session with.
#[derive(Debug)]
pub(crate) struct Host {
    session: Session,
    /// In front of what root is to do.
    as_root: &'static str,
}

/// A shell script, and how it runs.
#[derive(Debug)]
pub(crate) struct Script<'a> {
    pub(crate) text: &'a str,
    /// Words for `$1` and so on.
    pub(crate) words: &'a [&'a str],
    pub(crate) stdin: &'a [u8],
    pub(crate) as_root: bool,
    pub(crate) patience: Duration,
}

impl<'a> Script<'a> {
    /// A script that root runs.
    pub(crate) const fn of_root(text: &'a str, patience: Duration) -> Self {
        Self {
            text,
            words: &[],
            stdin: b"",
            as_root: true,
            patience,
        }
    }
}

/// The result of a script.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    /// The last lines of what it complained of.
    pub(crate) stderr: String,
}

impl Output {
    /// Returns stdout, or stderr as a failure of this code.
    pub(crate) fn success(self, code: Code) -> Result<String, Failure> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let said = if self.stderr.is_empty() {
            format!("the script ended with {}", self.status)
        } else {
            self.stderr
        };
        Err(Failure::new(code, said))
    }
}

impl Host {
    /// Connects.
    ///
    /// Fails with `SSH_FAILED`, and the mend that ssh's own words call for.
    pub(crate) async fn connect(target: &Target, access: &Access) -> Result<Self, Failure> {
        let mut builder = SessionBuilder::default();
        builder
            .known_hosts_check(if access.accept_new {
                KnownHosts::Add
            } else {
                KnownHosts::Strict
            })
            .connect_timeout(CONNECT_WAIT)
            .server_alive_interval(ALIVE_INTERVAL)
            .control_persist(ControlPersist::IdleFor(IDLE_SECS));
        if let Some(identity) = &access.identity {
            builder.keyfile(identity);
        }
        if let Some(port) = access.port {
            builder.port(port);
        }
        let session = tokio::time::timeout(SESSION_WAIT, builder.connect(target.as_str()))
            .await
            .map_err(|_| unreachable(target, &format!("no session within {SESSION_WAIT:?}")))?
            .map_err(|error| unreachable(target, &words(&error)))?;
        Ok(Self {
            session,
            as_root: "sudo -n ",
        })
    }

    /// Has root's scripts run without sudo, because ssh has come in as root.
    pub(crate) const fn is_root(&mut self) {
        self.as_root = "";
    }

    /// Runs a script to its end.
    ///
    /// Fails with `SSH_FAILED` if the connection is lost, and `TIMEOUT`; a script that fails is in what it said.
    pub(crate) async fn run(&self, script: &Script<'_>) -> Result<Output, Failure> {
        self.follow(script, |_| {}).await
    }

    /// The same, and hands over every line of its stdout as it comes.
    pub(crate) async fn follow(
        &self,
        script: &Script<'_>,
        each: impl FnMut(&str),
    ) -> Result<Output, Failure> {
        tokio::time::timeout(script.patience, self.carry_out(script, each))
            .await
            .map_err(|_| {
                let message = format!("the host did not finish within {:?}", script.patience);
                Failure::new(Code::Timeout, message)
            })?
    }

    async fn carry_out(
        &self,
        script: &Script<'_>,
        mut each: impl FnMut(&str),
    ) -> Result<Output, Failure> {
        let mut command = self.session.raw_command(self.command_line(script));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().await.map_err(lost)?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (
            child.stdin().take(),
            child.stdout().take(),
            child.stderr().take(),
        ) else {
            return Err(Failure::new(Code::Internal, "a script without pipes"));
        };
        let writing = async {
            // A script that ends without reading all of it is judged by how it ends.
            let _unread = stdin.write_all(script.stdin).await;
            drop(stdin);
        };
        let reading = async {
            let mut lines = BufReader::new(stdout.take(OUTPUT_MAX)).lines();
            let mut stdout_text = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                each(&line);
                stdout_text += &line;
                stdout_text.push('\n');
            }
            stdout_text
        };
        let reading_errors = async {
            let mut bytes = Vec::new();
            let _cut_short = stderr.take(OUTPUT_MAX).read_to_end(&mut bytes).await;
            last_lines(&String::from_utf8_lossy(&bytes))
        };
        let ((), stdout, stderr) = tokio::join!(writing, reading, reading_errors);
        let status = child.wait().await.map_err(lost)?;
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    }

    /// Quotes every word of the script. The host ends a script whose time is up, too.
    fn command_line(&self, script: &Script<'_>) -> String {
        let sudo = if script.as_root { self.as_root } else { "" };
        let secs = script.patience.as_secs().max(1);
        let mut line = format!("{sudo}timeout -k 5 {secs} sh -c {} sh", quoted(script.text));
        for word in script.words {
            let _infallible = write!(line, " {}", quoted(word));
        }
        line
    }

    /// Reads a file of the host as the user of the ssh session.
    pub(crate) async fn fetch(&self, path: &str, patience: Duration) -> Result<Vec<u8>, Failure> {
        let mut command = self.session.command("cat");
        command.args(["--", path]).stdin(Stdio::null());
        let output = tokio::time::timeout(patience, command.output())
            .await
            .map_err(|_| Failure::new(Code::Timeout, format!("{path} could not be read in time")))?
            .map_err(lost)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let stderr = last_lines(&String::from_utf8_lossy(&output.stderr));
        Err(Failure::new(Code::InstallFailed, stderr))
    }

    /// Says goodbye.
    pub(crate) async fn close(self) {
        // The other side may be gone.
        let _closed = self.session.close().await;
    }
}

/// As a POSIX shell reads it back (XCU 2.2.2).
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn lost(error: openssh::Error) -> Failure {
    let message = format!("the connection was lost: {}", words(&error));
    Failure::new(Code::SshFailed, message)
        .hint("run the same command again: it continues where it stopped")
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words += &format!(": {error}");
        cause = error.source();
    }
    words
}

fn unreachable(target: &Target, said: &str) -> Failure {
    let message = format!("ssh {target}: {}", last_lines(said));
    Failure::new(Code::SshFailed, message).hint(mend(target, said))
}

/// The hint for an error of ssh.
fn mend(target: &Target, said: &str) -> String {
    let host = target.host();
    if said.contains("IDENTIFICATION HAS CHANGED") {
        format!(
            "if {host} was reinstalled, run: ssh-keygen -R {host}; if it was not, the connection may be intercepted"
        )
    } else if said.contains("Host key verification failed") || said.contains("host key is known") {
        format!("ssh {target} (to check and accept its host key), or --yes to accept it unchecked")
    } else if said.contains("Permission denied") {
        format!("ssh-copy-id {target}, or --identity PATH")
    } else if said.contains("resolve") {
        format!("use a name for {host} that is in the DNS or in ~/.ssh/config")
    } else {
        format!("ssh {target} true")
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(STDERR_LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word_in_a_shell() {
        for word in ["", "a b", "it's", "$(id)", "`id`", "a\nb", r"\", "''"] {
            let line = format!("printf %s {}", quoted(word));
            let output = std::process::Command::new("sh")
                .args(["-c", &line])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn what_ssh_says_calls_for_something_to_do() {
        let target: Target = "op@m1".parse().unwrap();
        for (said, mend_begins) in [
            (
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
                "if m1 was",
            ),
            (
                "No ED25519 host key is known for m1 and you have requested strict checking.\nHost key verification failed.",
                "ssh op@m1 (to",
            ),
            ("op@m1: Permission denied (publickey).", "ssh-copy-id op@m1"),
            (
                "ssh: Could not resolve hostname m1: Name or service not known",
                "use a name for m1",
            ),
            (
                "ssh: connect to host m1 port 22: Connection refused",
                "ssh op@m1 true",
            ),
        ] {
            let failure = unreachable(&target, said);
            assert_eq!(failure.code, Code::SshFailed);
            let hint = failure.hint.unwrap();
            assert!(hint.starts_with(mend_begins), "{said}: {hint}");
        }
    }
}
