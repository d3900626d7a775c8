//! An installation: release artifacts, the versions on a machine, its settings and its units.
//!
//! ```text
//!  Release (a directory or a URL, a public key)
//!     │ latest, download: signature, digest, then unpacked, in that order
//!     ▼
//!  Programs (a directory with the three of them)
//!     │ Layout::install: staged beside, fsynced, renamed
//!     ▼
//!  /opt/ployz/versions/<version>  ◀── current (Layout::activate, roll_back: one rename each)
//! ```
//!
//! Everything here blocks: a daemon calls it from a thread of its own. Nothing keeps state but the file system, and
//! whatever is made there is made beside and renamed, so that a power cut leaves the one or the other.

#![forbid(unsafe_code)]

mod arch;
mod archive;
mod base;
mod changes;
mod departure;
mod docker;
mod files;
mod http;
mod layout;
mod mirror;
mod programs;
mod release;
mod service;
mod settings;
mod signature;
mod sums;
mod switch;
mod systemd;
#[cfg(test)]
mod testkit;
mod units;
mod version;

pub use arch::Arch;
pub use archive::pack;
pub use base::Base;
pub use layout::Layout;
pub use mirror::release_path;
pub use programs::{PROGRAMS, Programs};
pub use release::{Progress, Release};
pub use service::{Installed, Wanted};
pub use settings::Settings;
pub use signature::{InvalidKey, PublicKey};
pub use units::{DAEMON_UNIT, NATS_UNIT, write_units};
pub use version::{Change, Version, own_version};
