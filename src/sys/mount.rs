//! What: mounts of the calling process's own mount namespace, mount_namespaces(7).
//!
//! In: descriptors and paths that the operator chose. Out: trees of mounts as descriptors, put
//! where they belong. Does not: undo anything; the namespace goes with its last process.
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{CStr, c_int, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::sys::errno::{Errno, Result};
use crate::sys::{check, check_long};

/// `OPEN_TREE_CLONE` of linux/mount.h.
const OPEN_TREE_CLONE: u32 = 1;
/// `AT_RECURSIVE` of linux/fcntl.h.
const AT_RECURSIVE: u32 = 0x8000;
/// `AT_EMPTY_PATH` of linux/fcntl.h.
const AT_EMPTY_PATH: u32 = 0x1000;
/// `MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH` of linux/mount.h.
const MOVE_MOUNT_BOTH_EMPTY: u32 = 0x0000_0004 | 0x0000_0040;
/// `MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV` of linux/mount.h.
const ATTR_NOSUID_NODEV: u64 = 0x0000_0002 | 0x0000_0004;

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Whether the mounts below come along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submounts {
    /// They do.
    Included,
    /// They do not: what they cover shows.
    LeftOut,
}

/// From now on mounts made elsewhere still show up in this namespace, but none made here show up
/// elsewhere.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn make_all_slave() -> Result<()> {
    // SAFETY: the target is NUL-terminated; for a change of propagation source, type and data
    // are ignored, see mount(2).
    let done = unsafe {
        libc::mount(
            ptr::null(),
            c"/".as_ptr(),
            ptr::null(),
            libc::MS_SLAVE | libc::MS_REC,
            ptr::null(),
        )
    };
    check(done).map(drop)
}

/// A private copy of the mounts at `directory`, with `directory` as its root, that stands nowhere
/// yet. It lasts for as long as its descriptor, or until it is put somewhere.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` for a directory of another mount namespace,
/// `ENOSYS` before Linux 5.2.
pub fn clone_tree(directory: BorrowedFd<'_>, submounts: Submounts) -> Result<OwnedFd> {
    let recursive = match submounts {
        Submounts::Included => AT_RECURSIVE,
        Submounts::LeftOut => 0,
    };
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.unsigned_abs() | AT_EMPTY_PATH | recursive;
    // SAFETY: the path is NUL-terminated and only read.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            directory.as_raw_fd(),
            c"".as_ptr(),
            c_long::from(flags),
        )
    };
    let fd = c_int::try_from(check_long(fd)?).map_err(|_| Errno::EIO)?;
    // SAFETY: the kernel has just returned `fd` as a new descriptor, so it is open and nothing
    // else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// No device node on the mounts of `tree` can be opened, and no file there gives its owner's
/// rights when it is executed.
///
/// # Errors
/// `ENOSYS` before Linux 5.12, `EPERM` for mounts that are not of this namespace.
pub fn forbid_devices_and_set_id(tree: BorrowedFd<'_>) -> Result<()> {
    let change = MountAttr {
        attr_set: ATTR_NOSUID_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is NUL-terminated, and `change` is a mount_attr of the size that is
    // passed; both are only read and outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            c_long::from(AT_EMPTY_PATH | AT_RECURSIVE),
            &raw const change,
            size_of::<MountAttr>(),
        )
    };
    check_long(done).map(drop)
}

/// Puts `tree` over `directory`.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` for a directory of another mount namespace.
pub fn put(tree: BorrowedFd<'_>, directory: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: both paths are NUL-terminated and only read.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            directory.as_raw_fd(),
            c"".as_ptr(),
            c_long::from(MOVE_MOUNT_BOTH_EMPTY),
        )
    };
    check_long(done).map(drop)
}

/// Makes the working directory, the root of a mount, the root of the mount namespace; the old
/// root then lies over it, where [`detach_here`] takes it away. See the end of pivot_root(2).
///
/// # Errors
/// `EINVAL` where the old root is an initramfs, which cannot be moved; `EPERM`.
pub fn pivot_here() -> Result<()> {
    let here: &CStr = c".";
    // SAFETY: both paths are NUL-terminated and only read.
    let done = unsafe { libc::syscall(libc::SYS_pivot_root, here.as_ptr(), here.as_ptr()) };
    check_long(done).map(drop)
}

/// Takes away the mounts that lie over the working directory, with all below them.
///
/// # Errors
/// As umount2(2).
pub fn detach_here() -> Result<()> {
    // SAFETY: the path is NUL-terminated and only read.
    let done = unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) };
    check(done).map(drop)
}

/// Makes the working directory the root of this process.
///
/// # Errors
/// `EPERM` without `CAP_SYS_CHROOT`.
pub fn chroot_here() -> Result<()> {
    // SAFETY: the path is NUL-terminated and only read.
    let done = unsafe { libc::chroot(c".".as_ptr()) };
    check(done).map(drop)
}

/// Makes `directory` the working directory.
///
/// # Errors
/// As fchdir(2).
pub fn enter(directory: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
    let done = unsafe { libc::fchdir(directory.as_raw_fd()) };
    check(done).map(drop)
}
