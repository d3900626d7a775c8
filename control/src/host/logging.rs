//! The log: its destination and its format.

use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;

use clap::ValueEnum;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::host::error::HostError;

/// Destination and format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// The journal where stderr leads to it, text elsewhere.
    #[default]
    Auto,
    /// Lines for people, to stderr.
    Text,
    /// Lines of JSON, to stderr.
    Json,
    /// To journald, each field by its name.
    Journald,
}

/// Begins to log. `PLOYZ_LOG` selects, as in `PLOYZ_LOG=debug`. Stdout is for what a program waits for.
///
/// # Errors
/// If journald was asked for by name and is not there.
pub(crate) fn start(format: LogFormat) -> Result<(), HostError> {
    // Events of the store's client are logged by `store`, at a level of their own.
    let filter = EnvFilter::try_from_env("PLOYZ_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,async_nats=off"));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Journald => {
            let journal = tracing_journald::layer().map_err(HostError::NoJournal)?;
            registry.with(journal).init();
        }
        LogFormat::Auto => match tracing_journald::layer() {
            Ok(journal) if stderr_is_journal() => registry.with(journal).init(),
            Ok(_) | Err(_) => registry.with(lines).init(),
        },
        LogFormat::Text => registry.with(lines).init(),
        LogFormat::Json => registry.with(lines.json()).init(),
    }
    Ok(())
}

/// Whether systemd has connected stderr to the journal, which it names by device and inode (systemd.exec(5),
/// `$JOURNAL_STREAM`).
fn stderr_is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|it| stream == *format!("{}:{}", it.dev(), it.ino()))
}
