//! Failures of the host and of what this daemon keeps on it.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

/// A failure of the host, or of a file, a key or a setting on it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    /// The system refused an operation on a file or a directory.
    #[error("cannot {action} {path}: {cause}")]
    File {
        action: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
    /// A file is there and does not hold what it has to.
    #[error("{path} is damaged: {cause}; restore it, or move it away")]
    Damaged { path: PathBuf, cause: String },
    /// A file that this machine cannot do without has gone.
    #[error("{path} is missing: restore it")]
    Missing { path: PathBuf },
    /// A value cannot be rendered as JSON.
    #[error("cannot render {what}: {cause}")]
    Render {
        what: String,
        cause: serde_json::Error,
    },
    /// The data directory is not this user's.
    #[error("{path} belongs to another user: choose another --data-dir")]
    ForeignDirectory { path: PathBuf },
    /// The lock of the data directory is held.
    #[error("{path} is in use: another ployzd runs on it")]
    DirectoryInUse { path: PathBuf },
    /// The configuration file has a setting that is wrong or unknown.
    #[error("{path}, line {line}: {cause}")]
    ConfigFile {
        path: PathBuf,
        line: usize,
        cause: String,
    },
    /// The environment has a variable of ours that is no setting.
    #[error("the environment has {unknown}, which is no setting; there are {known}")]
    UnknownSettings { unknown: String, known: String },
    /// A setting has a value that it cannot have.
    #[error("{setting} is {value}: {rule}")]
    Setting {
        setting: &'static str,
        value: String,
        rule: String,
    },
    /// The daemon is configured as an ordinary user's.
    #[error(
        "service mode user is not supported: an interface requires root; run ployzd as root with --service-mode system"
    )]
    UserService,
    /// The host does not provide the default of a setting.
    #[error("cannot find the host's name: {0}; set it with --name")]
    HostName(Errno),
    /// journald was asked for by name and does not answer.
    #[error("there is no journald here: {0}; use --log-format text or json")]
    NoJournal(io::Error),
    /// A key of this machine, or of the network's authority, cannot be used.
    #[error("{what} cannot be used: {cause}")]
    Key { what: &'static str, cause: String },
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(rcgen::Error),
    /// A certificate was to end at a time that no calendar has.
    #[error("a certificate cannot expire at {0} seconds since 1970")]
    Expiry(u64),
    /// Certificates and keys that do not make a TLS configuration.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// An address cannot be listened at.
    #[error("cannot listen on {address} {purpose}: {cause}; choose another {flag}")]
    Listen {
        address: SocketAddr,
        purpose: &'static str,
        cause: io::Error,
        flag: &'static str,
    },
    /// A program of the host has not ended in time, and was killed.
    #[error("{program} did not end within {patience:?}")]
    ProgramTimedOut { program: String, patience: Duration },
    /// A program of the host could not be started, or has failed.
    #[error("{program}: {cause}")]
    ProgramFailed { program: String, cause: String },
    /// A thread has ended before its work was done.
    #[error("work on another thread has failed: {0}")]
    Thread(tokio::task::JoinError),
}

impl HostError {
    /// A failed operation on a file, for `map_err`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::File {
            action,
            path: path.to_owned(),
            cause,
        }
    }

    /// A value that cannot be rendered, for `map_err`.
    pub(crate) fn render(what: &str) -> impl FnOnce(serde_json::Error) -> Self {
        move |cause| Self::Render {
            what: what.to_owned(),
            cause,
        }
    }

    /// An unusable key, for `map_err`.
    pub(crate) fn key<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self::Key {
            what,
            cause: cause.to_string(),
        }
    }

    /// A TLS configuration that cannot be, for `map_err`.
    pub(crate) fn tls(cause: impl std::fmt::Display) -> Self {
        Self::Tls(cause.to_string())
    }
}

// Not by `#[from]`: the text has the cause already, and a reader that follows sources would print it twice.
impl From<rcgen::Error> for HostError {
    fn from(cause: rcgen::Error) -> Self {
        Self::Certificate(cause)
    }
}

/// An error of a library with all its causes, in one line. Causes that the error itself names are left out.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Caused {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn each_cause_is_named_once() {
        let caused = |text, source: Option<Caused>| Caused {
            text,
            source: source.map(Box::new),
        };
        let file = caused("no such file", None);
        let connect = caused("cannot connect: no such file", Some(file));
        let client = caused("client error", Some(connect));
        assert_eq!(
            with_causes(&client),
            "client error: cannot connect: no such file"
        );
    }
}
