//! What: the signals that ask the daemon to end or to say something, as something to read:
//! signalfd(2).
//!
//! In: nothing. Out: [`Signals`], blocked for the process from then on, so that none of them
//! interrupts or ends it. Invariant: made before any thread, which inherits the blocked set, and
//! kept over a fork: reading gives each process its own signals.
#![expect(unsafe_code, reason = "system calls")]

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::sys::errno::{Errno, Result};
use crate::sys::fork::ChildPid;
use crate::sys::{check, check_len, retry};

/// A signal that [`Signals`] hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Term,
    /// SIGINT.
    Int,
    /// SIGHUP.
    Hup,
    /// SIGCHLD.
    Chld,
    /// SIGUSR1.
    Usr1,
}

const HEARD: [Signal; 5] = [
    Signal::Term,
    Signal::Int,
    Signal::Hup,
    Signal::Chld,
    Signal::Usr1,
];

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Signal::Term => libc::SIGTERM,
            Signal::Int => libc::SIGINT,
            Signal::Hup => libc::SIGHUP,
            Signal::Chld => libc::SIGCHLD,
            Signal::Usr1 => libc::SIGUSR1,
        }
    }

    /// As signal(7) calls it.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Term => "SIGTERM",
            Signal::Int => "SIGINT",
            Signal::Hup => "SIGHUP",
            Signal::Chld => "SIGCHLD",
            Signal::Usr1 => "SIGUSR1",
        }
    }
}

/// The source of signals. See the module head.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals for the calling thread and those that it will start.
    ///
    /// # Errors
    /// As signalfd(2).
    pub fn block() -> Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initializes the whole set that it is given memory for.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in HEARD {
            // SAFETY: the set was initialized above; the signal exists.
            unsafe { libc::sigaddset(set.as_mut_ptr(), signal.number()) };
        }
        // SAFETY: the set is initialized and only read; the old one is not asked for.
        let done = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) };
        if done != 0 {
            return Err(Errno::from_raw(done));
        }
        // SAFETY: the set is initialized and only read.
        let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC) };
        let fd = check(fd)?;
        // SAFETY: the kernel has just returned `fd` as a new descriptor, so it is open and
        // nothing else owns it.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// As read(2); `EIO` for a signal that was not asked for.
    pub fn next(&self) -> Result<Signal> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let len = size_of::<libc::signalfd_siginfo>();
        let got = retry(|| {
            // SAFETY: `info` is writable for `len` bytes.
            let got = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), len) };
            check_len(got)
        })?;
        if got != len {
            return Err(Errno::EIO);
        }
        // SAFETY: the kernel has filled all of it, and any bytes are valid in this plain struct.
        let info = unsafe { info.assume_init() };
        HEARD
            .into_iter()
            .find(|signal| i64::from(signal.number()) == i64::from(info.ssi_signo))
            .ok_or(Errno::EIO)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends `signal` to `child`.
///
/// # Errors
/// `ESRCH` when it has gone, `EPERM`.
pub fn send(child: ChildPid, signal: Signal) -> Result<()> {
    // SAFETY: takes two numbers. The child has not been waited for, so the number is still its.
    let done = unsafe { libc::kill(child.raw(), signal.number()) };
    check(done).map(drop)
}
