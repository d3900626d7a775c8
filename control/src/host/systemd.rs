//! systemd, through its own tools.

use std::time::Duration;

use crate::host::error::HostError;
use crate::host::program;

/// A unit's own deadlines are shorter.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `systemctl`, `systemd-run` or `journalctl`, and returns its output.
pub(crate) async fn run(program: &str, line: &[&str]) -> Result<String, HostError> {
    program::run(program, line, PATIENCE).await
}
