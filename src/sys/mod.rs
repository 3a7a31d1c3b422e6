//! Linux system calls, one file per family of man pages, as safe functions over owned and
//! borrowed descriptors. `errno` is read in here and nowhere else.
//!
//! Every call that a signal can interrupt is started again (`retry`): the guest cannot tell
//! our signals from its own, so `EINTR` must never reach it. close(2) is the exception, because
//! Linux has freed the descriptor by then.

pub mod control_socket;
pub mod credentials;
pub mod data;
pub mod descriptors;
pub mod detach;
pub mod dirent;
pub mod errno;
pub mod fd_cell;
pub mod file_handle;
pub mod filter_args;
pub mod fork;
pub mod fs_type;
pub mod group;
pub mod heap;
pub mod ioctl;
pub mod kernel;
pub mod lock;
pub mod meta;
pub mod mount;
pub mod open;
pub mod page_cache;
pub mod path_ops;
pub mod poll;
pub mod prctl;
pub mod proc_fd;
pub mod process;
pub mod random;
pub mod sigbus;
pub mod signals;
pub mod socket;
pub mod thread;
pub mod vectored;
pub mod waits;
pub mod xattr;

use std::ffi::{c_int, c_long};

use errno::{Errno, Result};

/// The result of a call that returns -1 on failure.
fn check(returned: c_int) -> Result<c_int> {
    if returned < 0 {
        Err(Errno::last())
    } else {
        Ok(returned)
    }
}

/// The result of a raw system call, which returns -1 on failure.
fn check_long(returned: c_long) -> Result<c_long> {
    if returned < 0 {
        Err(Errno::last())
    } else {
        Ok(returned)
    }
}

/// The result of a call that returns a length in bytes, or -1 on failure.
fn check_len(returned: isize) -> Result<usize> {
    usize::try_from(returned).map_err(|_| Errno::last())
}

/// Starts a call again for as long as signals interrupt it.
fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// A file offset or length for the kernel, which counts them in signed 64 bits.
///
/// # Errors
/// `EINVAL` beyond `i64::MAX`, as lseek(2) and fallocate(2) say of negative values.
fn file_offset(bytes: u64) -> Result<i64> {
    i64::try_from(bytes).map_err(|_| Errno::EINVAL)
}
