//! Results go to stdout, progress goes to stderr. Nothing else prints.

use std::io::Write;

/// Writes one block of results. A reader that went away is not an error of the harness.
pub(crate) fn result(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}");
    let _ = stdout.flush();
}

/// Writes one line of progress.
pub(crate) fn progress(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
