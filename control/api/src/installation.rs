//! What a daemon says of how it came to its machine.

use serde::{Deserialize, Serialize};

/// How a daemon was installed, and what is to be had after it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Installation {
    /// Whose service it is: `system`.
    pub service_mode: String,
    /// The version that the next start takes; none if the daemon is not an installed one.
    pub current: Option<String>,
    /// The version before it.
    pub previous: Option<String>,
    /// Where later ones come from.
    pub release_base: Option<String>,
}
