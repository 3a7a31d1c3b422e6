//! What: limits and habits of the whole process.
//!
//! In: what the daemon wants. Out: what it got. Does not: fork, mount or drop privileges.
#![expect(unsafe_code, reason = "system calls")]

use std::fs;
use std::io;

use crate::sys::check;
use crate::sys::errno::Errno;

/// Descriptors to ask for when the operator does not say: one for each node that a guest knows,
/// and more than Linux gives by default. The kernel's own ceiling is `fs.nr_open`.
pub const NOFILE_TARGET: u64 = 1_000_000;

/// Most descriptors that the kernel gives any process (`fs.nr_open`).
pub fn nofile_ceiling() -> u64 {
    fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(u64::MAX)
}

/// Raises the limit of open descriptors (`RLIMIT_NOFILE`) towards `target` and returns what it
/// is then. Never lowers it: fewer than asked is no error, since the rest works.
///
/// # Errors
/// As getrlimit(2) and setrlimit(2).
pub fn raise_nofile(target: u64) -> io::Result<u64> {
    let wanted = target.min(nofile_ceiling());
    let now = nofile_limits()?;
    if now.rlim_cur >= wanted {
        return Ok(now.rlim_cur);
    }
    if set_nofile(wanted).is_ok() {
        return Ok(wanted);
    }
    // Raising the hard limit takes CAP_SYS_RESOURCE; up to it anyone may go.
    let within = wanted.min(now.rlim_max);
    set_nofile(within)?;
    Ok(within)
}

/// Sets the limit of open descriptors to exactly `limit`, raising the hard limit if need be.
///
/// # Errors
/// `EPERM` above the hard limit without CAP_SYS_RESOURCE, or above [`nofile_ceiling`].
pub fn set_nofile(limit: u64) -> io::Result<()> {
    let now = nofile_limits()?;
    let wanted = libc::rlimit {
        rlim_cur: limit,
        rlim_max: now.rlim_max.max(limit),
    };
    // SAFETY: `wanted` is one struct rlimit and is only read.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) };
    check(done)?;
    Ok(())
}

/// The limit of open descriptors.
///
/// # Errors
/// As getrlimit(2); not on Linux.
pub fn nofile() -> io::Result<u64> {
    nofile_limits().map(|limits| limits.rlim_cur)
}

fn nofile_limits() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable memory for one struct rlimit.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    check(done)?;
    Ok(limit)
}

/// Sets the file mode creation mask of the calling thread, and of those that share its
/// file-system state, and returns the mask before. Bits beyond 0777 are ignored by the kernel.
pub fn set_umask(mask: u32) -> u32 {
    // SAFETY: takes no pointers and cannot fail.
    unsafe { libc::umask(mask) }
}

/// Runs `make` under `mask` and puts the old mask back. For start-up, before there are threads
/// that share the mask.
pub fn with_umask<T>(mask: u32, make: impl FnOnce() -> T) -> T {
    let before = set_umask(mask);
    let made = make();
    set_umask(before);
    made
}

/// Makes a write beyond the file size limit (`RLIMIT_FSIZE`) fail with `EFBIG` instead of killing
/// the process by `SIGXFSZ`, setrlimit(2): a guest chooses where it writes.
///
/// # Errors
/// As sigaction(2); not with a signal number that exists.
pub fn ignore_file_size_signal() -> io::Result<()> {
    // SAFETY: SIG_IGN is no handler of ours, so no code of ours runs in signal context.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if before == libc::SIG_ERR {
        return Err(Errno::last().into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raise_nofile_never_lowers_and_reports_what_it_is() {
        let before = nofile().unwrap();
        assert_eq!(raise_nofile(1).unwrap(), before);
        let raised = raise_nofile(before.saturating_add(1)).unwrap();
        assert!(raised >= before);
        assert_eq!(nofile().unwrap(), raised);
    }
}
