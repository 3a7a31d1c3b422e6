//! What: what a process does to leave whoever started it: a session of its own (setsid(2)), other
//! standard streams (dup3(2)), and a variable less in its environment.
//!
//! In: a descriptor of /dev/null, the name of a variable. Out: nothing, or the variable's value.
//! Does not: fork; see `sys::fork`.
#![expect(unsafe_code, reason = "system calls and the environment")]

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::errno::Result;
use crate::sys::fork::thread_count;
use crate::sys::{check, retry};

/// Makes this process the leader of a new session, without a controlling terminal.
///
/// # Errors
/// `EPERM` for the leader of a process group, which a forked child never is.
pub fn new_session() -> Result<()> {
    // SAFETY: takes no arguments and touches no memory of ours.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Puts the open file of `replacement` in the place of standard input, output and error. By dup3(2)
/// on every architecture, which a filter of system calls has to let through.
///
/// # Errors
/// As dup3(2): `EINVAL` for one of the standard streams itself.
pub fn replace_stdio(replacement: BorrowedFd<'_>) -> Result<()> {
    for number in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        retry(|| {
            // SAFETY: the descriptor is open for the length of the borrow. The three numbers are
            // owned by no value: the standard library uses them by number, whatever is there.
            check(unsafe { libc::dup3(replacement.as_raw_fd(), number, 0) })
        })?;
    }
    Ok(())
}

/// The value of the environment variable `name`, which is removed, so that programs started from
/// here do not have it. A process with several threads keeps it: they may be reading.
pub fn take_variable(name: &OsStr) -> Option<OsString> {
    let value = env::var_os(name)?;
    if thread_count() == Ok(1) {
        // SAFETY: this is the only thread (the line before), so nobody reads the environment
        // while it changes.
        unsafe { env::remove_var(name) };
    }
    Some(value)
}
