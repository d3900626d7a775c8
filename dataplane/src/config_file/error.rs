//! What can be wrong with a configuration file, and what to write instead.

use std::io;
use std::path::PathBuf;

/// Why a file is not a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A line of it is wrong.
    #[error("{path}, {error}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: LineError,
    },
}

/// The first line that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LineError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a line. Values are not repeated: they may be secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Neither a section nor a setting.
    #[error("this is no setting; write it as Key = value")]
    NotASetting,
    /// A setting before the first section.
    #[error("this setting belongs to no section; write [Interface] or [Peer] above it")]
    NoSection,
    /// A section that is neither.
    #[error("there is no section [{0}]; write [Interface] or [Peer]")]
    UnknownSection(String),
    /// A setting that the section does not have.
    #[error("[{section}] has no setting {key}; it has {known}")]
    UnknownKey {
        /// The section's name.
        section: &'static str,
        /// What is not known in it.
        key: String,
        /// What is.
        known: &'static str,
    },
    /// A setting that tells wg-quick to do something.
    #[error("{0} is for wg-quick and has no effect here; remove the line")]
    WgQuick(String),
    /// A value that a setting cannot have.
    #[error("{key} is {expected}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What it can be.
        expected: &'static str,
    },
    /// A peer without a name; the line is that of `[Peer]`.
    #[error("this [Peer] has no PublicKey; add one")]
    NoPublicKey,
    /// A host name without an address.
    #[error("cannot resolve {host}: {cause}; write its address")]
    Unresolved {
        /// The name.
        host: String,
        /// The resolver's answer.
        cause: String,
    },
}

impl Problem {
    pub(super) const fn value(key: &'static str, expected: &'static str) -> Self {
        Self::Value { key, expected }
    }
}

/// A name as it can be shown: it may be anything.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(40).flat_map(char::escape_debug).collect()
}
