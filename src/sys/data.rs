//! What: the calls on file contents that move no bytes through this process.
//!
//! In: open descriptors. Out: lengths and offsets. Reading and writing into guest memory is in
//! `vectored`. Does not: know about guests.
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};

use crate::sys::errno::{Errno, Result};
use crate::sys::proc_fd::FdName;
use crate::sys::thread::FsThread;
use crate::sys::{check, check_len, file_offset, retry};

/// Flag of pwritev2(2): write at the end of the file, wherever that is by then.
pub const RWF_APPEND: i32 = libc::RWF_APPEND;

/// Flag of pwritev2(2): this write is durable when it returns, as with `O_DSYNC`.
pub const RWF_DSYNC: i32 = libc::RWF_DSYNC;

/// Flag of preadv2(2): `EAGAIN` rather than wait for what is not in memory.
pub const RWF_NOWAIT: i32 = libc::RWF_NOWAIT;

/// Flag of pwritev2(2): this write is durable when it returns, as with `O_SYNC`.
pub const RWF_SYNC: i32 = libc::RWF_SYNC;

/// Where [`seek`] counts from, or what it looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// The beginning of the file.
    Start,
    /// The end of the file.
    End,
    /// The next byte that is in no hole.
    Data,
    /// The next hole; the end of the file is one.
    Hole,
}

impl Whence {
    /// What lseek(2) calls this number. `SEEK_CUR` is not among them: the position of a
    /// descriptor that many guest tasks share says nothing.
    pub fn from_raw(raw: u32) -> Option<Self> {
        match c_int::try_from(raw).ok()? {
            libc::SEEK_SET => Some(Whence::Start),
            libc::SEEK_END => Some(Whence::End),
            libc::SEEK_DATA => Some(Whence::Data),
            libc::SEEK_HOLE => Some(Whence::Hole),
            _ => None,
        }
    }

    const fn raw(self) -> c_int {
        match self {
            Whence::Start => libc::SEEK_SET,
            Whence::End => libc::SEEK_END,
            Whence::Data => libc::SEEK_DATA,
            Whence::Hole => libc::SEEK_HOLE,
        }
    }
}

/// lseek(2) of a file; returns the offset in bytes.
///
/// # Errors
/// As lseek(2): `ENXIO` beyond the end.
pub fn seek(file: BorrowedFd<'_>, offset: u64, whence: Whence) -> Result<u64> {
    let offset = file_offset(offset)?;
    // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence.raw()) };
    u64::try_from(found).map_err(|_| Errno::last())
}

/// ftruncate(2).
///
/// # Errors
/// As ftruncate(2): `EINVAL` if the file is not open for writing.
pub fn truncate_open(file: BorrowedFd<'_>, size_bytes: u64) -> Result<()> {
    let size = file_offset(size_bytes)?;
    retry(|| {
        // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
        let done = unsafe { libc::ftruncate(file.as_raw_fd(), size) };
        check(done)
    })?;
    Ok(())
}

/// truncate(2) of the file that `pinned` holds: one call, where opening it would take three.
///
/// # Errors
/// As truncate(2): `EISDIR` for a directory, `EINVAL` for other special files, which it does
/// not open.
pub fn truncate_pinned(_cwd: &FsThread, pinned: BorrowedFd<'_>, size_bytes: u64) -> Result<()> {
    let size = file_offset(size_bytes)?;
    let name = FdName::new(pinned);
    retry(|| {
        // SAFETY: the name is NUL-terminated, only read, and outlives the call. The working
        // directory of an FsThread is /proc/self/fd, so it names `pinned`.
        let done = unsafe { libc::truncate(name.as_c_str().as_ptr(), size) };
        check(done)
    })?;
    Ok(())
}

/// fallocate(2).
///
/// # Errors
/// As fallocate(2).
pub fn allocate(file: BorrowedFd<'_>, mode: u32, offset: u64, len_bytes: u64) -> Result<()> {
    let mode = c_int::try_from(mode).map_err(|_| Errno::EOPNOTSUPP)?;
    let offset = file_offset(offset)?;
    let len = file_offset(len_bytes)?;
    retry(|| {
        // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
        let done = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) };
        check(done)
    })?;
    Ok(())
}

/// An open file and an offset in it.
#[derive(Clone, Copy, Debug)]
pub struct PositionIn<'a> {
    /// The open file.
    pub file: BorrowedFd<'a>,
    /// Offset in bytes.
    pub offset: u64,
}

/// copy_file_range(2): one call; returns the bytes copied, which may be fewer than asked.
///
/// # Errors
/// As copy_file_range(2).
pub fn copy_range(from: PositionIn<'_>, to: PositionIn<'_>, len_bytes: u64) -> Result<usize> {
    let mut offset_in = file_offset(from.offset)?;
    let mut offset_out = file_offset(to.offset)?;
    let len = usize::try_from(len_bytes).map_err(|_| Errno::EINVAL)?;
    retry(|| {
        // SAFETY: both offsets are writable and outlive the call.
        let copied = unsafe {
            libc::copy_file_range(
                from.file.as_raw_fd(),
                &raw mut offset_in,
                to.file.as_raw_fd(),
                &raw mut offset_out,
                len,
                0,
            )
        };
        check_len(copied)
    })
}

/// fsync(2).
///
/// # Errors
/// As fsync(2).
pub fn sync_everything(file: BorrowedFd<'_>) -> Result<()> {
    retry(|| {
        // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
        let done = unsafe { libc::fsync(file.as_raw_fd()) };
        check(done)
    })?;
    Ok(())
}

/// fdatasync(2).
///
/// # Errors
/// As fdatasync(2).
pub fn sync_contents(file: BorrowedFd<'_>) -> Result<()> {
    retry(|| {
        // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
        let done = unsafe { libc::fdatasync(file.as_raw_fd()) };
        check(done)
    })?;
    Ok(())
}

/// syncfs(2) of the file system that holds `file`.
///
/// # Errors
/// As syncfs(2).
pub fn sync_file_system(file: BorrowedFd<'_>) -> Result<()> {
    retry(|| {
        // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
        let done = unsafe { libc::syncfs(file.as_raw_fd()) };
        check(done)
    })?;
    Ok(())
}

/// Closes a duplicate of `file`, so that its file system sees a close(2) and can report what it
/// could not write so far (NFS and the like).
///
/// # Errors
/// As close(2), without `EINTR`: Linux has closed the descriptor by then.
pub fn close_duplicate(file: BorrowedFd<'_>) -> Result<()> {
    let duplicate = file.as_fd().try_clone_to_owned()?.into_raw_fd();
    // SAFETY: `duplicate` is open, and into_raw_fd has given up its only owner.
    let done = unsafe { libc::close(duplicate) };
    match check(done) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
