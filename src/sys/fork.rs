//! What: making a child process, perhaps in namespaces of its own, and hearing of its end.
//!
//! In: [`Namespaces`]. Out: [`Forked`], twice. Invariant: a process with more than one thread
//! never forks, since a child has only the thread that made it, with the locks of all the others.
//! Does not: execute programs; the standard library does that.
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{c_int, c_long};
use std::fs;

use bitflags::bitflags;

use crate::sys::check_long;
use crate::sys::errno::{Errno, Result};
use crate::sys::{check, retry};

bitflags! {
    /// Namespaces that a child gets of its own, clone(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Namespaces: i32 {
        /// `CLONE_NEWNS`.
        const MOUNT = libc::CLONE_NEWNS;
        /// `CLONE_NEWPID`: the child is its process 1.
        const PID = libc::CLONE_NEWPID;
        /// `CLONE_NEWNET`: not even a loopback interface that is up.
        const NETWORK = libc::CLONE_NEWNET;
        /// `CLONE_NEWUSER`: the child has all capabilities there, and no ids before it gets maps.
        const USER = libc::CLONE_NEWUSER;
    }
}

/// A process id, as the process that got it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildPid(c_int);

impl ChildPid {
    /// The number.
    pub fn raw(self) -> i32 {
        self.0
    }
}

/// Who the caller of [`fork`] is when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The process that called.
    Parent(ChildPid),
    /// The new process.
    Child,
}

/// How a child has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEnd {
    /// With this status.
    Exited(u8),
    /// By this signal.
    Signalled(i32),
}

/// Makes a child process.
///
/// # Errors
/// `EBUSY` in a process with several threads; otherwise as clone(2): `EPERM` without
/// `CAP_SYS_ADMIN` for namespaces other than USER, or where USER is forbidden to ordinary users;
/// `ENOSPC` beyond the limits in /proc/sys/user; `EINVAL` for namespaces that the kernel lacks.
pub fn fork(namespaces: Namespaces) -> Result<Forked> {
    if thread_count()? != 1 {
        return Err(Errno::EBUSY);
    }
    let flags = c_long::from(namespaces.bits() | libc::SIGCHLD);
    // s390x takes the stack first; it is 0, and with no CLONE_VM the child goes on here.
    #[cfg(target_arch = "s390x")]
    let arguments = [0, flags];
    #[cfg(not(target_arch = "s390x"))]
    let arguments = [flags, 0];
    // SAFETY: without CLONE_VM and without a stack this is fork(2): the child goes on with a copy
    // of all memory. There is no other thread (above), so no lock is held and no memory is half
    // changed. What libc does at fork beyond this (handlers of pthread_atfork, its note of the
    // thread's id) nothing here needs; libc's own fork cannot make namespaces.
    let pid = unsafe { libc::syscall(libc::SYS_clone, arguments[0], arguments[1], 0, 0, 0) };
    match c_int::try_from(check_long(pid)?).map_err(|_| Errno::EIO)? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(ChildPid(pid))),
    }
}

/// Threads of this process.
pub(super) fn thread_count() -> Result<usize> {
    let tasks = fs::read_dir("/proc/self/task").map_err(Errno::from)?;
    Ok(tasks.count())
}

/// How `child` has ended; `None` while it runs. Does not wait.
///
/// # Errors
/// `ECHILD` when it is no child, or was heard of before.
pub fn ended(child: ChildPid) -> Result<Option<ChildEnd>> {
    wait(child, libc::WNOHANG)
}

/// Waits until `child` ends.
///
/// # Errors
/// `ECHILD` when it is no child, or was heard of before.
pub fn wait_end(child: ChildPid) -> Result<ChildEnd> {
    wait(child, 0)?.ok_or(Errno::EIO)
}

fn wait(child: ChildPid, options: c_int) -> Result<Option<ChildEnd>> {
    let mut status: c_int = 0;
    let pid = retry(|| {
        // SAFETY: `status` is writable memory for one int.
        let pid = unsafe { libc::waitpid(child.0, &raw mut status, options) };
        check(pid)
    })?;
    if pid == 0 {
        return Ok(None);
    }
    if libc::WIFSIGNALED(status) {
        return Ok(Some(ChildEnd::Signalled(libc::WTERMSIG(status))));
    }
    let code = u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX);
    Ok(Some(ChildEnd::Exited(code)))
}

/// Asks for SIGTERM when the parent process ends. To be asked again after a change of ids, which
/// makes the kernel forget it, PR_SET_PDEATHSIG(2const).
///
/// # Errors
/// As prctl(2); not with a signal that exists.
pub fn end_with_parent() -> Result<()> {
    // SAFETY: this operation takes a number and no pointers.
    let done = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
    check(done).map(drop)
}

/// Ends the process now: no destructor runs, nothing is flushed. For a child that has nothing to
/// clean up, and for a process that cannot end otherwise.
pub fn end_at_once(status: u8) -> ! {
    // SAFETY: takes a number; nothing of this process is used afterwards.
    unsafe { libc::_exit(c_int::from(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fork_in_a_process_with_threads_is_refused() {
        // Tests run in threads of their own.
        assert_eq!(fork(Namespaces::empty()), Err(Errno::EBUSY));
    }
}
