//! What: extended attributes of the file that a descriptor pins, of any type, in one call each.
//!
//! In: a descriptor and a thread whose working directory is /proc/self/fd: the descriptor's
//! number is then a relative path to the file itself, and the path calls take it. The f*xattr
//! calls refuse `O_PATH` descriptors, and opening is out of the question for special files.
//! Does not: map or hide names.
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{CStr, c_int};
use std::os::fd::{AsRawFd, BorrowedFd};

use bitflags::bitflags;

use crate::sys::errno::Result;
use crate::sys::proc_fd::FdName;
use crate::sys::thread::FsThread;
use crate::sys::{check, check_len, retry};

/// Longest value in bytes (`XATTR_SIZE_MAX`); the kernel never returns a longer one.
pub const VALUE_LEN_MAX: usize = 65536;

/// Longest list of names in bytes (`XATTR_LIST_MAX`); the kernel never returns a longer one.
pub const LIST_LEN_MAX: usize = 65536;

bitflags! {
    /// Flags of setxattr(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct XattrFlags: u32 {
        /// Fail if it exists.
        const CREATE = libc::XATTR_CREATE.unsigned_abs();
        /// Fail unless it exists.
        const REPLACE = libc::XATTR_REPLACE.unsigned_abs();
    }
}

/// setxattr(2).
///
/// # Errors
/// As setxattr(2).
pub fn set(
    _cwd: &FsThread,
    pinned: BorrowedFd<'_>,
    name: &CStr,
    value: &[u8],
    flags: XattrFlags,
) -> Result<()> {
    let file = FdName::new(pinned);
    let flags = c_int::try_from(flags.bits()).unwrap_or(0);
    retry(|| {
        // SAFETY: path and name are NUL-terminated and `value` is readable for the length that
        // is passed; all outlive the call. The FsThread's working directory makes the path the
        // pinned file.
        let done = unsafe {
            libc::setxattr(
                file.as_c_str().as_ptr(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                flags,
            )
        };
        check(done)
    })?;
    Ok(())
}

/// getxattr(2); with an empty `buf`, only the length in bytes.
///
/// # Errors
/// As getxattr(2): `ERANGE` when the value is longer than `buf`.
pub fn get(_cwd: &FsThread, pinned: BorrowedFd<'_>, name: &CStr, buf: &mut [u8]) -> Result<usize> {
    let file = FdName::new(pinned);
    retry(|| {
        // SAFETY: path and name are NUL-terminated and `buf` is writable for the length that is
        // passed; all outlive the call. See `set` for the path.
        let len = unsafe {
            libc::getxattr(
                file.as_c_str().as_ptr(),
                name.as_ptr(),
                buf.as_mut_ptr().cast(),
                buf.len(),
            )
        };
        check_len(len)
    })
}

/// fgetxattr(2) of a file that is open, and not only pinned: a third of the time.
///
/// # Errors
/// As [`get`].
pub fn get_of_open(file: BorrowedFd<'_>, name: &CStr, buf: &mut [u8]) -> Result<usize> {
    retry(|| {
        // SAFETY: the name is NUL-terminated and `buf` is writable for the length that is passed;
        // both outlive the call.
        let len = unsafe {
            libc::fgetxattr(
                file.as_raw_fd(),
                name.as_ptr(),
                buf.as_mut_ptr().cast(),
                buf.len(),
            )
        };
        check_len(len)
    })
}

/// listxattr(2); with an empty `buf`, only the length in bytes.
///
/// # Errors
/// As listxattr(2): `ERANGE` when the list is longer than `buf`.
pub fn list(_cwd: &FsThread, pinned: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    let file = FdName::new(pinned);
    retry(|| {
        // SAFETY: the path is NUL-terminated and `buf` is writable for the length that is
        // passed; both outlive the call. See `set` for the path.
        let len = unsafe {
            libc::listxattr(file.as_c_str().as_ptr(), buf.as_mut_ptr().cast(), buf.len())
        };
        check_len(len)
    })
}

/// flistxattr(2) of a file that is open.
///
/// # Errors
/// As [`list`].
pub fn list_of_open(file: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    retry(|| {
        // SAFETY: `buf` is writable for the length that is passed, and outlives the call.
        let len = unsafe { libc::flistxattr(file.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
        check_len(len)
    })
}

/// removexattr(2).
///
/// # Errors
/// As removexattr(2).
pub fn remove(_cwd: &FsThread, pinned: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let file = FdName::new(pinned);
    retry(|| {
        // SAFETY: path and name are NUL-terminated, only read, and outlive the call. See `set`
        // for the path.
        let done = unsafe { libc::removexattr(file.as_c_str().as_ptr(), name.as_ptr()) };
        check(done)
    })?;
    Ok(())
}
