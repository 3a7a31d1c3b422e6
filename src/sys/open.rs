//! What: open(2) and openat2(2), as one function for each purpose that this program has.
//!
//! In: a directory and one name, or a pinned descriptor. Out: an [`OwnedFd`], always
//! close-on-exec. Invariants: a name from a guest is opened beneath its directory and never
//! through a link; [`HostOpenFlags`] holds no bit that could change what is opened. Does not:
//! decide which of the guest's flags pass (see `passthrough::open`).
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{CStr, CString, c_int, c_long};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bitflags::bitflags;

use crate::sys::errno::{Errno, Result};
use crate::sys::proc_fd::{FdName, ProcFd};
use crate::sys::{check_long, kernel, retry};

bitflags! {
    /// The flags of open(2) that this program ever passes on from a guest.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct HostOpenFlags: u32 {
        /// `O_WRONLY`; without it and [`Self::RDWR`], the file is opened for reading.
        const WRONLY = libc::O_WRONLY.unsigned_abs();
        /// `O_RDWR`.
        const RDWR = libc::O_RDWR.unsigned_abs();
        /// `O_TRUNC`.
        const TRUNC = libc::O_TRUNC.unsigned_abs();
        /// `O_NONBLOCK`: for a regular file, do not wait for a lease to be given up.
        const NONBLOCK = libc::O_NONBLOCK.unsigned_abs();
        /// `O_DSYNC`.
        const DSYNC = libc::O_DSYNC.unsigned_abs();
        /// `O_SYNC`, which includes `O_DSYNC`.
        const SYNC = libc::O_SYNC.unsigned_abs();
        /// `O_DIRECT`.
        const DIRECT = libc::O_DIRECT.unsigned_abs();
        /// `O_NOATIME`.
        const NOATIME = libc::O_NOATIME.unsigned_abs();
    }
}

const CLOEXEC: u32 = libc::O_CLOEXEC.unsigned_abs();
const PATH: u32 = libc::O_PATH.unsigned_abs();
const NOFOLLOW: u32 = libc::O_NOFOLLOW.unsigned_abs();
const DIRECTORY: u32 = libc::O_DIRECTORY.unsigned_abs();
const CREATE_NEW: u32 = (libc::O_CREAT | libc::O_EXCL).unsigned_abs();
const TMPFILE: u32 = libc::O_TMPFILE.unsigned_abs();
const NOCTTY: u32 = libc::O_NOCTTY.unsigned_abs();
const PERMISSIONS: u32 = 0o7777;

/// `struct open_how` of openat2(2). libc's is not constructible outside libc.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Pins whatever `name` is, without opening it: a symbolic link is pinned itself.
///
/// # Errors
/// As open(2), among them `ENOENT`, `ENOTDIR` and `EMFILE`.
pub fn pin_beneath(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    beneath(directory, name, PATH | NOFOLLOW, 0)
}

/// Pins the directory above `directory`, which may lie outside the share: what is found is good
/// for nothing until it has been shown to lie inside. The one place where `..` is ever opened.
///
/// # Errors
/// As open(2): `ENOENT` when a bind mount hides what is above.
pub fn pin_parent(directory: BorrowedFd<'_>) -> Result<OwnedFd> {
    openat(directory.as_raw_fd(), c"..", PATH | DIRECTORY | NOFOLLOW, 0)
}

/// Makes a regular file `name` that was not there, and opens it.
///
/// # Errors
/// As open(2) with `O_CREAT | O_EXCL`, among them `EEXIST`.
pub fn create_new(
    directory: BorrowedFd<'_>,
    name: &CStr,
    flags: HostOpenFlags,
    mode: u32,
) -> Result<OwnedFd> {
    let flags = flags.bits() | CREATE_NEW | NOFOLLOW | NOCTTY;
    beneath(directory, name, flags, mode & PERMISSIONS)
}

/// Makes a regular file without a name on the file system of `directory`, and opens it.
///
/// # Errors
/// As open(2) with `O_TMPFILE`: `EINVAL` unless it is opened for writing, `EOPNOTSUPP`.
pub fn create_unnamed(
    directory: BorrowedFd<'_>,
    flags: HostOpenFlags,
    mode: u32,
) -> Result<OwnedFd> {
    beneath(directory, c".", flags.bits() | TMPFILE, mode & PERMISSIONS)
}

/// Opens the file that `pinned` holds.
///
/// The caller knows that it is a regular file or a directory: opening anything else may block
/// or have effects.
///
/// # Errors
/// As open(2).
pub fn reopen(proc_fd: &ProcFd, pinned: BorrowedFd<'_>, flags: HostOpenFlags) -> Result<OwnedFd> {
    through_proc(proc_fd, pinned, flags.bits() | NOCTTY)
}

/// Opens the directory that `pinned` holds, for reading its entries.
///
/// # Errors
/// As open(2), `ENOTDIR` if it is none.
pub fn reopen_directory(
    proc_fd: &ProcFd,
    pinned: BorrowedFd<'_>,
    flags: HostOpenFlags,
) -> Result<OwnedFd> {
    let flags = flags.intersection(HostOpenFlags::NOATIME);
    through_proc(proc_fd, pinned, flags.bits() | DIRECTORY)
}

/// Pins the file that `opened` holds: a descriptor that neither reads nor writes.
///
/// # Errors
/// As open(2).
pub fn pin_again(proc_fd: &ProcFd, opened: BorrowedFd<'_>) -> Result<OwnedFd> {
    through_proc(proc_fd, opened, PATH)
}

/// Pins what is at `path`, a path that the operator gave: links in it are followed.
///
/// # Errors
/// As open(2); `EINVAL` for a path with a NUL.
pub fn pin_path(path: &Path) -> Result<OwnedFd> {
    at_host_path(path, PATH)
}

/// Pins the directory at `path`, a path that the operator gave: links in it are followed.
///
/// # Errors
/// As open(2), `ENOTDIR` if it is none.
pub fn directory(path: &Path) -> Result<OwnedFd> {
    at_host_path(path, PATH | DIRECTORY)
}

/// Opens the file at `path` for reading and writing, or makes it with mode 0600. A link in the last
/// component is refused (`ELOOP`). Never waits and never becomes a controlling terminal, whatever
/// stands there; look at the type before using it.
///
/// # Errors
/// As open(2).
pub fn open_or_create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

fn at_host_path(path: &Path, flags: u32) -> Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    openat(libc::AT_FDCWD, &path, flags, 0)
}

fn through_proc(proc_fd: &ProcFd, fd: BorrowedFd<'_>, flags: u32) -> Result<OwnedFd> {
    let name = FdName::new(fd);
    openat(proc_fd.as_fd().as_raw_fd(), name.as_c_str(), flags, 0)
}

/// Opens one name. openat2(2) makes the kernel refuse links and `..`; before Linux 5.6, or where
/// a filter forbids it, the name being one component (`FileName`) and `O_NOFOLLOW` do the same.
fn beneath(directory: BorrowedFd<'_>, name: &CStr, flags: u32, mode: u32) -> Result<OwnedFd> {
    if kernel::has_openat2() {
        openat2_beneath(directory, name, flags, mode)
    } else {
        openat(directory.as_raw_fd(), name, flags, mode)
    }
}

/// openat2(2) without links and without leaving `directory`. With `O_PATH | O_NOFOLLOW` a final
/// symbolic link is still opened itself, which is what RESOLVE_NO_SYMLINKS documents.
pub(super) fn openat2_beneath(
    directory: BorrowedFd<'_>,
    name: &CStr,
    flags: u32,
    mode: u32,
) -> Result<OwnedFd> {
    let how = OpenHow {
        flags: u64::from(flags | CLOEXEC),
        mode: u64::from(mode),
        resolve: libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_SYMLINKS,
    };
    let opened = retry(|| {
        // SAFETY: `name` is NUL-terminated and `how` is an open_how of the size that is passed;
        // both are only read and outlive the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                directory.as_raw_fd(),
                name.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        };
        check_long(fd)
    })?;
    own(opened)
}

fn openat(directory: c_int, name: &CStr, flags: u32, mode: u32) -> Result<OwnedFd> {
    let opened = retry(|| {
        // SAFETY: `name` is NUL-terminated, only read, and outlives the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat,
                directory,
                name.as_ptr(),
                c_long::from(flags | CLOEXEC),
                c_long::from(mode),
            )
        };
        check_long(fd)
    })?;
    own(opened)
}

fn own(fd: c_long) -> Result<OwnedFd> {
    let fd = c_int::try_from(fd).map_err(|_| Errno::EIO)?;
    // SAFETY: the kernel has just returned `fd` as a new descriptor, so it is open and nothing
    // else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way in which a name can lead elsewhere, below /proc, which has them all.
    #[test]
    fn names_lead_nowhere_with_openat2_and_without() {
        let process = directory(Path::new("/proc/self")).unwrap();
        let plain = |name, flags| openat(process.as_raw_fd(), name, flags | NOFOLLOW, 0);
        let confined = |name, flags| openat2_beneath(process.as_fd(), name, flags | NOFOLLOW, 0);
        for link in [c"exe", c"cwd", c"root"] {
            // The link itself can be pinned; it can never be opened or gone through.
            assert!(plain(link, PATH).is_ok(), "{link:?}");
            assert_eq!(plain(link, 0).unwrap_err(), Errno::ELOOP, "{link:?}");
            if kernel::has_openat2() {
                assert!(confined(link, PATH).is_ok(), "{link:?}");
                assert_eq!(confined(link, 0).unwrap_err(), Errno::ELOOP, "{link:?}");
            }
        }
        if kernel::has_openat2() {
            for outside in [c"..", c"/", c"../1", c"cwd/.."] {
                assert!(confined(outside, PATH).is_err(), "{outside:?}");
            }
        }
    }
}
