//! The errors of system calls.

use std::io;

/// The result of a system call that answers -1 and sets `errno`.
pub(super) fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
