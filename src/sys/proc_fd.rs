//! What: `/proc/self/fd`, the way from a pinned descriptor back to its file.
//!
//! In: descriptors. Out: their names below [`ProcFd`]. Following such a name leads to the very
//! file that the descriptor holds, whatever has become of its path. Invariant: a [`ProcFd`] is
//! the descriptor directory of this process; one taken over a fork would show the parent's.

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::sys::errno::Result;
use crate::sys::open;

/// Digits of the largest descriptor (2147483647), and a NUL.
const NAME_CAPACITY: usize = 11;

/// The opened directory `/proc/self/fd` of this process.
#[derive(Debug)]
pub struct ProcFd(OwnedFd);

impl ProcFd {
    /// Opens it at its usual place. Call it in the process that will use it, after any fork.
    ///
    /// # Errors
    /// `ENOENT` when /proc is not mounted.
    pub fn open() -> Result<Self> {
        open::directory(Path::new(OsStr::from_bytes(b"/proc/self/fd"))).map(ProcFd)
    }

    /// Takes over a descriptor of it, for a process that has left /proc behind in a sandbox.
    pub fn from_fd(directory: OwnedFd) -> Self {
        ProcFd(directory)
    }
}

impl AsFd for ProcFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The name of a descriptor below [`ProcFd`]: its number in decimal. Made without allocating.
pub struct FdName<'fd> {
    digits: [u8; NAME_CAPACITY],
    start: usize,
    _named: BorrowedFd<'fd>,
}

impl<'fd> FdName<'fd> {
    /// The name of `fd`, good for as long as `fd` is open.
    pub fn new(fd: BorrowedFd<'fd>) -> Self {
        let mut digits = [0; NAME_CAPACITY];
        // The last byte stays NUL; a descriptor has at most NAME_CAPACITY - 1 digits.
        let mut start = NAME_CAPACITY - 1;
        let mut rest = fd.as_raw_fd().unsigned_abs();
        for slot in digits.iter_mut().rev().skip(1) {
            // Below 10, so it always fits.
            *slot = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            start = start.saturating_sub(1);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        FdName {
            digits,
            start,
            _named: fd,
        }
    }

    /// The name for a system call.
    pub fn as_c_str(&self) -> &CStr {
        self.digits
            .get(self.start..)
            .and_then(|name| CStr::from_bytes_with_nul(name).ok())
            .unwrap_or(c"")
    }
}

impl fmt::Debug for FdName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FdName").field(&self.as_c_str()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_descriptor_leads_to_its_file() {
        let proc_fd = ProcFd::open().unwrap();
        let name = FdName::new(proc_fd.as_fd());
        assert_eq!(
            name.as_c_str().to_str().unwrap(),
            proc_fd.as_fd().as_raw_fd().to_string()
        );
        let target = std::fs::read_link(format!(
            "/proc/self/fd/{}",
            name.as_c_str().to_str().unwrap()
        ));
        assert!(target.unwrap().ends_with("fd"));
    }
}
