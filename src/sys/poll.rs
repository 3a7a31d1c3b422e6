//! What: waiting for descriptors, asking whether one would block, and eventfd(2).
//!
//! In: borrowed descriptors that a front end gave us, so of any kind. Out: which are ready, as
//! poll(2) says. Does not: read or write them.

#![expect(unsafe_code, reason = "poll(2), eventfd(2) and fcntl(2)")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

/// What is going on at one descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read gives bytes, or the end.
    pub readable: bool,
    /// The other side has gone, or the descriptor is not one that can be waited for.
    pub hung_up: bool,
}

/// Sleeps until one of the descriptors has something to say; `None` entries are skipped.
/// A signal ends the sleep with nothing ready.
///
/// # Errors
/// What poll(2) reported, except `EINTR`.
pub fn wait_readable<const N: usize>(
    descriptors: [Option<BorrowedFd<'_>>; N],
) -> io::Result<[Readiness; N]> {
    // A negative descriptor is ignored by poll(2).
    let mut asked = descriptors.map(|descriptor| libc::pollfd {
        fd: descriptor.map_or(-1, |descriptor| descriptor.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    poll(&mut asked, -1)?;
    Ok(asked.map(|answer| Readiness {
        readable: answer.revents & libc::POLLIN != 0,
        hung_up: answer.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0,
    }))
}

/// A new eventfd(2) with count zero, which blocks until told otherwise.
///
/// # Errors
/// What eventfd(2) reported.
pub fn eventfd() -> io::Result<File> {
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { File::from_raw_fd(raw) })
}

/// Whether a read would return at once.
pub fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    is_ready(descriptor, libc::POLLIN)
}

/// Whether a write of a few bytes would return at once.
pub fn is_writable(descriptor: BorrowedFd<'_>) -> bool {
    is_ready(descriptor, libc::POLLOUT)
}

/// Whether the other side has gone.
pub fn is_hung_up(descriptor: BorrowedFd<'_>) -> bool {
    is_ready(descriptor, libc::POLLHUP)
}

/// Whether `O_NONBLOCK` is set on the open file.
pub fn is_nonblocking(descriptor: BorrowedFd<'_>) -> bool {
    matches!(status_flags(descriptor), Ok(flags) if flags & libc::O_NONBLOCK != 0)
}

/// Sets `O_NONBLOCK` on the open file, for all who share it.
///
/// # Errors
/// What fcntl(2) reported.
pub fn set_nonblocking(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let flags = status_flags(descriptor)?;
    if flags & libc::O_NONBLOCK != 0 {
        return Ok(());
    }
    // SAFETY: F_SETFL takes an int and touches no memory of ours; the descriptor is open for the
    // length of the borrow.
    let done = unsafe {
        libc::fcntl(
            descriptor.as_raw_fd(),
            libc::F_SETFL,
            flags | libc::O_NONBLOCK,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn status_flags(descriptor: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFL takes no argument and touches no memory of ours; the descriptor is open
    // for the length of the borrow.
    let flags = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(flags)
}

fn is_ready(descriptor: BorrowedFd<'_>, events: libc::c_short) -> bool {
    let mut asked = [libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events,
        revents: 0,
    }];
    let [answer] = match poll(&mut asked, 0) {
        Ok(()) => asked,
        Err(_) => return false,
    };
    answer.revents & events != 0
}

fn poll(asked: &mut [libc::pollfd], timeout_ms: libc::c_int) -> io::Result<()> {
    let count = libc::nfds_t::try_from(asked.len())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: `asked` is valid for reads and writes of `count` entries during the call.
    let ready = unsafe { libc::poll(asked.as_mut_ptr(), count, timeout_ms) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn wait_readable_with_one_side_ready_names_that_side() {
        let (quiet, _quiet_peer) = UnixStream::pair().expect("a socket pair");
        let (loud, mut loud_peer) = UnixStream::pair().expect("a socket pair");
        loud_peer.write_all(b"x").expect("room in the socket");

        let [first, second, third] =
            wait_readable([Some(quiet.as_fd()), Some(loud.as_fd()), None]).expect("poll");

        assert!(!first.readable && !first.hung_up);
        assert!(second.readable);
        assert_eq!(third, Readiness::default());
    }

    #[test]
    fn set_nonblocking_on_a_socket_is_seen_by_is_nonblocking() {
        let (one, _other) = UnixStream::pair().expect("a socket pair");
        assert!(!is_nonblocking(one.as_fd()));
        set_nonblocking(one.as_fd()).expect("fcntl");
        assert!(is_nonblocking(one.as_fd()));
    }
}
