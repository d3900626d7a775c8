//! Descriptors that a supervisor has passed to this process (sd_listen_fds(3)).
//!
//! # Safety
//!
//! Numbers become owners. The supervisor says by `LISTEN_PID` that they are for this process, they were open before its
//! first instruction, and nobody else here knows of them; they are taken once.
#![expect(unsafe_code, reason = "a number that becomes an owner")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes all of them, each with the name under which it was kept. The second call finds none.
///
/// # Errors
/// If the environment contradicts itself.
pub(crate) fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds_with_names(false)?;
    Ok(passed
        .map(|(number, name)| {
            // SAFETY: the number is open, ours, and taken here alone: see the module.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            (name, fd)
        })
        .collect())
}
