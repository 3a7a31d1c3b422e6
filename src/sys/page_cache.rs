//! What: which contents of a file the host has in memory.
//!
//! In: an open file and a range. Out: whether reading it needs no disk and no server. By
//! cachestat(2), which the C libraries do not know; its number is the same on all architectures.
#![expect(unsafe_code, reason = "system calls")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use crate::sys::check_long;
use crate::sys::errno::Result;

/// `__NR_cachestat`, Linux 6.5.
const CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range`.
#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

/// `struct cachestat`, in pages.
#[derive(Default)]
#[repr(C)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether all pages of the range are in memory, or on their way there. Behind the end of the
/// file there are none.
///
/// # Errors
/// As cachestat(2): `ENOSYS` before Linux 6.5, `EPERM` for a file of somebody else that is not
/// open for writing, `EOPNOTSUPP` on hugetlbfs.
pub fn holds(file: BorrowedFd<'_>, offset: u64, len: usize) -> Result<bool> {
    let len = u64::try_from(len).unwrap_or(u64::MAX);
    if len == 0 {
        // Which would mean: to the end.
        return Ok(true);
    }
    let range = Range { offset, len };
    let mut stat = CacheStat::default();
    // SAFETY: the range is only read, the result is as long as the kernel writes, and both outlive
    // the call; the descriptor is open while it is borrowed.
    let done = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            &raw const range,
            &raw mut stat,
            0,
        )
    };
    check_long(done)?;
    let page_len = page_len();
    let last = offset.saturating_add(len.saturating_sub(1));
    let pages = (last / page_len).saturating_sub(offset / page_len);
    Ok(stat.cached > pages)
}

fn page_len() -> u64 {
    static PAGE_LEN: OnceLock<u64> = OnceLock::new();
    *PAGE_LEN.get_or_init(|| {
        // SAFETY: takes no pointers.
        let len = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        u64::try_from(len).unwrap_or(4096).max(1)
    })
}

/// Throws what is clean out of memory, and sees to it that nothing more is read into it than what
/// is asked for.
#[cfg(test)]
pub(crate) fn drop_all(file: BorrowedFd<'_>) {
    for advice in [libc::POSIX_FADV_DONTNEED, libc::POSIX_FADV_RANDOM] {
        // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
        let done = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, advice) };
        assert_eq!(done, 0, "posix_fadvise");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::errno::Errno;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::fd::AsFd;

    #[test]
    fn holds_is_true_for_what_was_just_written_and_false_behind_it() {
        let mut file = tempfile();
        file.write_all(&[1; 3 * 4096]).unwrap();
        match holds(file.as_fd(), 0, 3 * 4096) {
            Err(Errno::ENOSYS) => {
                println!("skipped: this kernel has no cachestat(2)");
            }
            held => {
                assert_eq!(held, Ok(true));
                assert_eq!(holds(file.as_fd(), 4096, 1), Ok(true));
                assert_eq!(holds(file.as_fd(), 0, 0), Ok(true));
                assert_eq!(holds(file.as_fd(), 1 << 30, 4096), Ok(false));
                file.seek(SeekFrom::Start(1 << 30)).unwrap();
                file.write_all(&[1]).unwrap();
                let both = holds(file.as_fd(), (1 << 30) - 4096, 4097);
                assert_eq!(both, Ok(false), "half of it is a hole that nobody has read");
            }
        }
    }

    fn tempfile() -> std::fs::File {
        let path = std::env::temp_dir().join(format!("page-cache-{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(&path);
        std::fs::remove_file(&path).unwrap();
        file.unwrap()
    }
}
