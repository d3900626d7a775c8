//! The stages of provisioning a host, in their order.

use std::fmt;

use ployz_api::Failure;

/// A stage of making a machine of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Is it fit? Nothing is changed.
    Preflight,
    /// The programs and the daemon's unit.
    Install,
    /// The daemon uses an invite, or founds the network.
    Join,
    /// The network knows the machine.
    Record,
    /// The host has a session with every active machine that can be reached.
    Ready,
    /// The host may be given work.
    Enable,
}

impl Stage {
    /// The word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Install => "install",
            Self::Join => "join",
            Self::Record => "record",
            Self::Ready => "ready",
            Self::Enable => "enable",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A host of which no machine could be made.
#[derive(Debug)]
pub(crate) struct Stopped {
    /// The stage that was reached.
    pub(crate) stage: Stage,
    /// Why no further.
    pub(crate) failure: Failure,
}
