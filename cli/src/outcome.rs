//! What comes of a command: a payload, or a code with a cause and a mend.

use serde_json::{Map, Value};

/// A command that did what it was asked.
#[derive(Debug)]
pub(crate) struct Success {
    /// For people.
    pub(crate) text: String,
    /// For programs; it has a `kind`.
    pub(crate) payload: Map<String, Value>,
}

/// A command that did not.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// The command that mends it.
    pub(crate) hint: Option<String>,
}

/// The codes of `docs`' contract that are in use; short and stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    DaemonUnreachable,
    InvalidArgument,
    Unsupported,
}

impl Code {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::DaemonUnreachable => "DAEMON_UNREACHABLE",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::Unsupported => "UNSUPPORTED",
        }
    }

    /// 1 refused or failed, 2 usage, 3 not reachable.
    pub(crate) const fn exit_status(self) -> u8 {
        match self {
            Self::Unsupported => 1,
            Self::InvalidArgument => 2,
            Self::DaemonUnreachable => 3,
        }
    }
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
