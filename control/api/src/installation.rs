//! A daemon's report about its own installation.

use serde::{Deserialize, Serialize};

/// The installation of a daemon, and the source of later versions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Installation {
    /// The service mode: `system`.
    pub service_mode: String,
    /// The version that the next start takes; none if the daemon is not an installed one.
    pub current: Option<String>,
    /// The version before it.
    pub previous: Option<String>,
    /// The base of later versions.
    pub release_base: Option<String>,
}
