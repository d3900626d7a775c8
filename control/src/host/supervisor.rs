//! Readiness, as the supervisor and the program that started this daemon learn of it.

use std::io::Write as _;

/// Announces readiness: writes `ready` to stdout, and notifies systemd.
pub(crate) fn announce_ready() -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    // Without systemd the notification has no receiver.
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    Ok(())
}
