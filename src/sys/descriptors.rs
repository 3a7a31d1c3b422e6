//! What: which descriptors a program started from here would inherit (close_range(2), fcntl(2)).
//!
//! In: nothing, or a descriptor that somebody else made. Out: descriptors with FD_CLOEXEC, and
//! those that the parent left open, which a confined process closes: a directory among them would
//! be a way out. Until then they may be named on the command line.
#![expect(unsafe_code, reason = "system calls")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::sys::errno::Errno;
use crate::sys::{check, check_long};

/// First number that is not standard input, output or error. The standard library has put
/// /dev/null in the place of those that were closed before `main` runs.
const FIRST_BEYOND_STDIO: RawFd = 3;

/// `CLOSE_RANGE_CLOEXEC`: mark instead of close, Linux 5.11.
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// Marks every open descriptor above standard error as close-on-exec, so that no helper program
/// gets what the parent happened to leave open. Call it before there are threads that open files.
///
/// # Errors
/// On kernels before 5.11, when /proc/self/fd cannot be read.
pub fn close_on_exec_beyond_stdio() -> io::Result<()> {
    // SAFETY: takes no pointers; with CLOSE_RANGE_CLOEXEC it closes nothing, so no owner of a
    // descriptor loses it.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST_BEYOND_STDIO,
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
    match check_long(marked) {
        Ok(_) => Ok(()),
        Err(_) => close_on_exec_one_by_one(),
    }
}

/// The same for kernels that cannot mark a range.
fn close_on_exec_one_by_one() -> io::Result<()> {
    for number in open_beyond_stdio()? {
        match mark(number) {
            // The descriptor of the directory has gone by now.
            Err(Errno::EBADF) | Ok(()) => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What is open, and the descriptor with which it was listed, which is not any more.
fn open_beyond_stdio() -> io::Result<Vec<RawFd>> {
    let names = fs::read_dir("/proc/self/fd")?;
    Ok(names
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number >= FIRST_BEYOND_STDIO)
        .collect())
}

/// The descriptors above standard error that the parent process left open.
#[derive(Debug)]
pub struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Lists them. Call it first of all in `main`: whatever the program opens itself before counts
    /// as inherited. Without /proc there are none to be found.
    pub fn find() -> Self {
        let listed = open_beyond_stdio().unwrap_or_default();
        // SAFETY: F_GETFD takes no further argument and fails with EBADF on anything not open.
        let is_open = |number: &RawFd| unsafe { libc::fcntl(*number, libc::F_GETFD) } >= 0;
        Inherited(listed.into_iter().filter(is_open).collect())
    }

    /// Closes them all but `kept`, which has an owner in this program.
    pub fn close_but(self, kept: BorrowedFd<'_>) {
        for number in self.0 {
            if number != kept.as_raw_fd() {
                // SAFETY: the parent left it open and nothing in this program took it over, so no
                // owner is deprived of it. What cannot be closed was not open.
                unsafe { libc::close(number) };
            }
        }
    }
}

/// Marks one descriptor as close-on-exec, for those that arrive without.
///
/// # Errors
/// As fcntl(2); not with an open descriptor.
pub fn close_on_exec(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    mark(descriptor.as_raw_fd()).map_err(io::Error::from)
}

fn mark(number: RawFd) -> Result<(), Errno> {
    // SAFETY: F_SETFD takes an int and fails with EBADF on anything not open; FD_CLOEXEC is the
    // only flag there is, and changes nothing for this program.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    fn is_marked(file: &File) -> bool {
        // SAFETY: F_GETFD takes no further argument; the descriptor is open.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) };
        flags & libc::FD_CLOEXEC != 0
    }

    fn unmarked() -> File {
        let file = File::open("/dev/null").unwrap();
        // SAFETY: F_SETFD takes an int; the descriptor is open.
        check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) }).unwrap();
        assert!(!is_marked(&file));
        file
    }

    #[test]
    fn close_on_exec_marks_by_range_one_by_one_and_alone() {
        let file = unmarked();
        close_on_exec_beyond_stdio().unwrap();
        assert!(is_marked(&file));
        let file = unmarked();
        close_on_exec_one_by_one().unwrap();
        assert!(is_marked(&file));
        let file = unmarked();
        close_on_exec(file.as_fd()).unwrap();
        assert!(is_marked(&file));
    }
}
