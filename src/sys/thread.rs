//! What: threads that may touch files of a guest.
//!
//! In: a thread that asks. Out: [`FsThread`], the proof that this thread has
//!   - working directory, root and umask of its own (`unshare(CLONE_FS)`),
//!   - /proc/self/fd as its working directory, so that the number of a descriptor is a relative
//!     path to the file it holds, even in a sandbox where /proc is out of reach,
//!   - a umask of 0, since the guest has applied its own already.
//!
//! Invariant: an [`FsThread`] never leaves its thread. What the thread is (ids, groups,
//! capabilities) is read once here, so the process must have become what it will be before a
//! thread serves its first request; after a fork the child must use fresh threads.
#![expect(unsafe_code, reason = "system calls")]

use std::cell::OnceCell;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use crate::sys::credentials::{self, CapabilitySets};
use crate::sys::errno::{Errno, Result};
use crate::sys::proc_fd::ProcFd;
use crate::sys::{check, process};

thread_local! {
    static CURRENT: OnceCell<FsThread> = const { OnceCell::new() };
}

/// Who a thread is when it does not act for a caller.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnCredentials {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Box<[u32]>,
    /// Capability sets.
    pub capabilities: CapabilitySets,
}

/// The proof that the calling thread may touch files of a guest. See the module head.
#[derive(Clone, Debug)]
pub struct FsThread(Rc<OwnCredentials>);

impl FsThread {
    /// Makes the calling thread one, the first time; afterwards this costs no system call.
    ///
    /// # Errors
    /// As unshare(2), fchdir(2) and capget(2), all improbable once they have worked in one
    /// thread; `EIO` in a thread that is ending.
    pub fn current(proc_fd: &ProcFd) -> Result<Self> {
        CURRENT
            .try_with(|current| {
                if let Some(thread) = current.get() {
                    return Ok(thread.clone());
                }
                let thread = FsThread::prepare(proc_fd)?;
                Ok(current.get_or_init(|| thread).clone())
            })
            .map_err(|_| Errno::EIO)?
    }

    /// Who the thread is when it does not act for a caller.
    pub fn own(&self) -> &OwnCredentials {
        &self.0
    }

    fn prepare(proc_fd: &ProcFd) -> Result<Self> {
        // SAFETY: takes no pointers; from here on the thread shares its working directory, root
        // and umask with no other, which nothing in this program relies on.
        let unshared = unsafe { libc::unshare(libc::CLONE_FS) };
        check(unshared)?;
        // SAFETY: takes no pointers; the descriptor is open while it is borrowed.
        let moved = unsafe { libc::fchdir(proc_fd.as_fd().as_raw_fd()) };
        check(moved)?;
        process::set_umask(0);
        Ok(FsThread(Rc::new(OwnCredentials {
            uid: credentials::effective_uid(),
            gid: credentials::effective_gid(),
            groups: credentials::groups()?,
            capabilities: credentials::capabilities()?,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fs_thread_leaves_the_working_directory_of_others_alone() {
        let before = std::env::current_dir().unwrap();
        let inside = std::thread::spawn(|| {
            let proc_fd = ProcFd::open().unwrap();
            let _thread = FsThread::current(&proc_fd).unwrap();
            let _again = FsThread::current(&proc_fd).unwrap();
            std::env::current_dir().unwrap()
        });
        let inside = inside.join().unwrap();
        assert!(inside.ends_with("fd"), "{inside:?}");
        assert_eq!(std::env::current_dir().unwrap(), before);
    }
}
