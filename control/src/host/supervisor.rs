//! The supervisor that has started this daemon, and whoever waits on its stdout.

use std::io::Write as _;

/// Says `ready` to whoever waits on stdout, and to systemd.
pub(crate) fn announce_ready() -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    Ok(())
}
