//! What: advisory locks that belong to an open file description: fcntl(2) with `F_OFD_*`, and
//! flock(2).
//!
//! In: open files and ranges in bytes. Out: locks, or that somebody else has one in the way.
//! Invariant: nothing here waits for a lock. Does not: know who a lock is for.
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{c_int, c_short};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::errno::{Errno, Result};
use crate::sys::{check, file_offset, retry};

/// The last byte that a lock can reach, `OFFSET_MAX`: to the end of the file and beyond.
const LAST_BYTE: u64 = i64::MAX.unsigned_abs();

/// What is wanted of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Nobody else may have it exclusively.
    Shared,
    /// Nobody else may have it at all.
    Exclusive,
    /// To be rid of it.
    Unlocked,
}

/// Bytes of a file, both ends included; the last one is at most `i64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Last byte; `i64::MAX` means to the end, wherever that is.
    pub end: u64,
}

/// For what a file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// It can be read, and so locked by [`LockMode::Shared`].
    pub reads: bool,
    /// It can be written, and so locked by [`LockMode::Exclusive`].
    pub writes: bool,
}

/// Takes, changes or gives back the lock of this open file on a range, at once or not at all.
///
/// # Errors
/// As fcntl(2) with `F_OFD_SETLK`: `EAGAIN` somebody else is in the way, `EBADF` the file is not
/// open for what the mode needs, `ENOLCK`; `EINVAL` for an empty range.
pub fn set_range(file: BorrowedFd<'_>, range: ByteRange, mode: LockMode) -> Result<()> {
    let lock = flock_of(range, mode)?;
    let done = retry(|| {
        // SAFETY: `lock` is a valid flock that is only read and outlives the call; the
        // descriptor is open while it is borrowed.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        check(done)
    });
    match done {
        Ok(_) => Ok(()),
        // fcntl(2) allows either.
        Err(Errno::EACCES) => Err(Errno::EAGAIN),
        Err(errno) => Err(errno),
    }
}

/// The first lock of another open file or process that stands in the way of this one.
///
/// # Errors
/// As fcntl(2) with `F_OFD_GETLK`; `EINVAL` for an empty range.
pub fn range_holder(
    file: BorrowedFd<'_>,
    range: ByteRange,
    mode: LockMode,
) -> Result<Option<(ByteRange, LockMode)>> {
    let mut lock = flock_of(range, mode)?;
    retry(|| {
        // SAFETY: `lock` is a valid flock that the kernel may write to and outlives the call;
        // the descriptor is open while it is borrowed.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
        check(done)
    })?;
    let found = match c_int::from(lock.l_type) {
        libc::F_RDLCK => LockMode::Shared,
        libc::F_WRLCK => LockMode::Exclusive,
        _ => return Ok(None),
    };
    let start = u64::try_from(lock.l_start).map_err(|_| Errno::EIO)?;
    let end = match u64::try_from(lock.l_len).map_err(|_| Errno::EIO)? {
        0 => LAST_BYTE,
        len => start.saturating_add(len).saturating_sub(1).min(LAST_BYTE),
    };
    Ok(Some((ByteRange { start, end }, found)))
}

/// Takes, changes or gives back the lock of this open file on the whole file, at once or not at
/// all. A change that fails has given back what there was: flock(2) is not atomic.
///
/// # Errors
/// As flock(2) with `LOCK_NB`: `EAGAIN` somebody else is in the way, `ENOLCK`.
pub fn set_whole(file: BorrowedFd<'_>, mode: LockMode) -> Result<()> {
    let operation = match mode {
        LockMode::Shared => libc::LOCK_SH,
        LockMode::Exclusive => libc::LOCK_EX,
        LockMode::Unlocked => libc::LOCK_UN,
    };
    retry(|| {
        // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
        let done = unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) };
        check(done)
    })
    .map(drop)
}

/// For what a file was opened.
///
/// # Errors
/// As fcntl(2) with `F_GETFL`: none for a descriptor that is open.
pub fn access(file: BorrowedFd<'_>) -> Result<Access> {
    // SAFETY: F_GETFL takes no argument; the descriptor is open while it is borrowed.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    let mode = check(flags)? & libc::O_ACCMODE;
    Ok(Access {
        reads: mode != libc::O_WRONLY,
        writes: mode != libc::O_RDONLY,
    })
}

fn flock_of(range: ByteRange, mode: LockMode) -> Result<libc::flock> {
    let len = match range.end {
        LAST_BYTE.. => 0,
        end => end
            .checked_sub(range.start)
            .and_then(|last| last.checked_add(1))
            .ok_or(Errno::EINVAL)?,
    };
    let kind = match mode {
        LockMode::Shared => libc::F_RDLCK,
        LockMode::Exclusive => libc::F_WRLCK,
        LockMode::Unlocked => libc::F_UNLCK,
    };
    Ok(libc::flock {
        l_type: c_short::try_from(kind).map_err(|_| Errno::EINVAL)?,
        l_whence: c_short::try_from(libc::SEEK_SET).map_err(|_| Errno::EINVAL)?,
        l_start: file_offset(range.start)?,
        l_len: file_offset(len)?,
        // Must be zero for locks of open files.
        l_pid: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsFd;

    use vmm_sys_util::tempfile::TempFile;

    fn open_twice() -> (TempFile, File, File) {
        let made = TempFile::new().expect("room in /tmp");
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(made.as_path())
                .expect("it is there")
        };
        let (one, other) = (open(), open());
        (made, one, other)
    }

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    #[test]
    fn ranges_of_two_open_files_conflict_where_they_meet() {
        let (_made, one, other) = open_twice();
        let (one, other) = (one.as_fd(), other.as_fd());
        set_range(one, range(10, 19), LockMode::Exclusive).expect("free");
        for (start, end, free) in [
            (0, 9, true),
            (0, 10, false),
            (19, 19, false),
            (20, LAST_BYTE, true),
            (0, LAST_BYTE, false),
        ] {
            let wanted = range(start, end);
            let holder = range_holder(other, wanted, LockMode::Shared).expect("asked");
            let expected = (!free).then_some((range(10, 19), LockMode::Exclusive));
            assert_eq!(holder, expected, "{wanted:?}");
            let taken = set_range(other, wanted, LockMode::Shared);
            let expected = if free { Ok(()) } else { Err(Errno::EAGAIN) };
            assert_eq!(taken, expected, "{wanted:?}");
            set_range(other, wanted, LockMode::Unlocked).expect("always");
        }
    }

    #[test]
    fn range_to_the_end_is_told_as_such() {
        let (_made, one, other) = open_twice();
        set_range(one.as_fd(), range(7, LAST_BYTE), LockMode::Shared).expect("free");
        let all = range(0, LAST_BYTE);
        let holder = range_holder(other.as_fd(), all, LockMode::Exclusive).expect("asked");
        assert_eq!(holder, Some((range(7, LAST_BYTE), LockMode::Shared)));
        let shared = range_holder(other.as_fd(), all, LockMode::Shared).expect("asked");
        assert_eq!(shared, None);
    }

    #[test]
    fn range_that_ends_before_it_starts_is_refused() {
        let (_made, one, _other) = open_twice();
        let set = set_range(one.as_fd(), range(7, 6), LockMode::Shared);
        assert_eq!(set, Err(Errno::EINVAL));
    }

    #[test]
    fn whole_files_conflict_and_a_failed_change_gives_up_what_there_was() {
        let (made, one, other) = open_twice();
        let (one, other) = (one.as_fd(), other.as_fd());
        set_whole(one, LockMode::Shared).expect("free");
        set_whole(other, LockMode::Shared).expect("shared");
        assert_eq!(set_whole(one, LockMode::Exclusive), Err(Errno::EAGAIN));
        set_whole(other, LockMode::Exclusive).expect("the first one is gone");
        let third = File::open(made.as_path()).expect("it is there");
        assert_eq!(
            set_whole(third.as_fd(), LockMode::Shared),
            Err(Errno::EAGAIN)
        );
        set_whole(other, LockMode::Unlocked).expect("always");
        set_whole(third.as_fd(), LockMode::Shared).expect("free again");
    }

    #[test]
    fn access_of_each_mode_is_told() {
        let made = TempFile::new().expect("room in /tmp");
        for (reads, writes) in [(true, false), (false, true), (true, true)] {
            let file = OpenOptions::new()
                .read(reads)
                .write(writes)
                .open(made.as_path())
                .expect("it is there");
            assert_eq!(access(file.as_fd()), Ok(Access { reads, writes }));
        }
    }
}
