//! What: the calls that make, move and remove names.
//!
//! In: a directory and one name in it. Out: nothing but success. These calls have no flags that
//! would confine them, so a name must be one component: callers pass what `FileName` has
//! checked. Does not: look at what was there before.
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{CStr, c_int};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bitflags::bitflags;

use crate::sys::errno::Result;
use crate::sys::meta::DeviceNumber;
use crate::sys::proc_fd::{FdName, ProcFd};
use crate::sys::{check, check_len, check_long, retry};

bitflags! {
    /// Flags of renameat2(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        /// Fail if the new name is taken.
        const NOREPLACE = libc::RENAME_NOREPLACE;
        /// Swap the two names.
        const EXCHANGE = libc::RENAME_EXCHANGE;
        /// Leave a whiteout device behind at the old name.
        const WHITEOUT = libc::RENAME_WHITEOUT;
    }
}

/// One name in one directory.
#[derive(Clone, Copy, Debug)]
pub struct PlaceAt<'a> {
    /// The directory.
    pub directory: BorrowedFd<'a>,
    /// One path component.
    pub name: &'a CStr,
}

/// mkdir(2).
///
/// # Errors
/// As mkdir(2).
pub fn make_directory(at: PlaceAt<'_>, mode: u32) -> Result<()> {
    retry(|| {
        // SAFETY: the name is NUL-terminated, only read, and outlives the call.
        let done = unsafe { libc::mkdirat(at.directory.as_raw_fd(), at.name.as_ptr(), mode) };
        check(done)
    })?;
    Ok(())
}

/// mknod(2); `mode` holds the type and the permission bits.
///
/// # Errors
/// As mknod(2).
pub fn make_node(at: PlaceAt<'_>, mode: u32, device: DeviceNumber) -> Result<()> {
    let device = libc::makedev(device.major, device.minor);
    retry(|| {
        // SAFETY: the name is NUL-terminated, only read, and outlives the call.
        let done =
            unsafe { libc::mknodat(at.directory.as_raw_fd(), at.name.as_ptr(), mode, device) };
        check(done)
    })?;
    Ok(())
}

/// symlink(2); the target is text to the kernel and is not looked up.
///
/// # Errors
/// As symlink(2).
pub fn make_symlink(at: PlaceAt<'_>, target: &CStr) -> Result<()> {
    retry(|| {
        // SAFETY: both strings are NUL-terminated, only read, and outlive the call.
        let done =
            unsafe { libc::symlinkat(target.as_ptr(), at.directory.as_raw_fd(), at.name.as_ptr()) };
        check(done)
    })?;
    Ok(())
}

/// link(2) for the file that `pinned` holds, whatever its type; a symbolic link is linked itself.
///
/// # Errors
/// As link(2); `ENOENT` when the file has no name left.
pub fn make_link(proc_fd: &ProcFd, pinned: BorrowedFd<'_>, at: PlaceAt<'_>) -> Result<()> {
    let source = FdName::new(pinned);
    retry(|| {
        // SAFETY: both strings are NUL-terminated, only read, and outlive the call.
        let done = unsafe {
            libc::linkat(
                proc_fd.as_fd().as_raw_fd(),
                source.as_c_str().as_ptr(),
                at.directory.as_raw_fd(),
                at.name.as_ptr(),
                libc::AT_SYMLINK_FOLLOW,
            )
        };
        check(done)
    })?;
    Ok(())
}

/// unlink(2).
///
/// # Errors
/// As unlink(2).
pub fn remove_file(at: PlaceAt<'_>) -> Result<()> {
    unlinkat(at, 0)
}

/// rmdir(2).
///
/// # Errors
/// As rmdir(2).
pub fn remove_directory(at: PlaceAt<'_>) -> Result<()> {
    unlinkat(at, libc::AT_REMOVEDIR)
}

fn unlinkat(at: PlaceAt<'_>, flags: c_int) -> Result<()> {
    retry(|| {
        // SAFETY: the name is NUL-terminated, only read, and outlives the call.
        let done = unsafe { libc::unlinkat(at.directory.as_raw_fd(), at.name.as_ptr(), flags) };
        check(done)
    })?;
    Ok(())
}

/// renameat2(2).
///
/// # Errors
/// As rename(2).
pub fn rename(from: PlaceAt<'_>, to: PlaceAt<'_>, flags: RenameFlags) -> Result<()> {
    retry(|| {
        // SAFETY: both names are NUL-terminated, only read, and outlive the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_renameat2,
                from.directory.as_raw_fd(),
                from.name.as_ptr(),
                to.directory.as_raw_fd(),
                to.name.as_ptr(),
                flags.bits(),
            )
        };
        check_long(done)
    })?;
    Ok(())
}

/// readlink(2) of the symbolic link that `pinned` holds; returns the bytes written, which are
/// cut without notice at the length of `buf`.
///
/// # Errors
/// As readlink(2).
pub fn read_symlink(pinned: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    retry(|| {
        // SAFETY: the path is an empty C string, and `buf` is writable for its whole length,
        // which is what is passed.
        let len = unsafe {
            libc::readlinkat(
                pinned.as_raw_fd(),
                c"".as_ptr(),
                buf.as_mut_ptr().cast(),
                buf.len(),
            )
        };
        check_len(len)
    })
}
