//! What: prctl(2), as far as it takes rights away.
//!
//! In: capabilities by number. Out: nothing but success, or an answer. Nothing that is taken here
//! comes back. Does not: know names of capabilities, or decide which ones go.
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{c_int, c_ulong};

use crate::sys::check;
use crate::sys::errno::{Errno, Result};

const NOTHING: c_ulong = 0;

fn prctl(operation: c_int, argument: c_ulong) -> Result<c_int> {
    // SAFETY: the operations of this module take numbers only; what they leave unused must be 0.
    check(unsafe { libc::prctl(operation, argument, NOTHING, NOTHING, NOTHING) })
}

/// From now on execve(2) gives the process no rights that it does not have, whatever the file.
///
/// # Errors
/// As prctl(2): `EINVAL` before Linux 3.5.
pub fn forbid_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map(drop)
}

/// Whether the capability is in the bounding set of the calling thread; `None` for a number that
/// this kernel has no capability for.
///
/// # Errors
/// As prctl(2).
pub fn is_bounding(capability: u32) -> Result<Option<bool>> {
    match prctl(libc::PR_CAPBSET_READ, c_ulong::from(capability)) {
        Ok(answer) => Ok(Some(answer != 0)),
        Err(Errno::EINVAL) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Takes the capability off the bounding set of the calling thread.
///
/// # Errors
/// As prctl(2): `EPERM` without `CAP_SETPCAP`.
pub fn drop_bounding(capability: u32) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, c_ulong::from(capability)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounding_set_ends_where_the_kernel_knows_no_more_capabilities() {
        assert!(is_bounding(0).unwrap().is_some());
        assert_eq!(is_bounding(1000).unwrap(), None);
    }
}
