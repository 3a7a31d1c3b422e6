//! What: facts about the running kernel, found out once.
//!
//! In: nothing. Out: answers that never change while the process runs. Does not: read version
//! numbers; what counts is whether the call works here, under this container's filter.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::errno::{Errno, Result};
use crate::sys::{open, retry};

/// A newer form of a call that makes a longer way unnecessary, and whether it works here. A detour
/// by /proc costs about 2 us.
#[derive(Debug)]
pub struct Shortcut {
    is_closed: AtomicBool,
}

impl Shortcut {
    /// One that has not been tried.
    pub const fn new() -> Self {
        let is_closed = AtomicBool::new(false);
        Shortcut { is_closed }
    }

    /// Takes the short way, and the long one where the short one is not known: `ENOSYS` of an old
    /// kernel, `EINVAL` for a new flag, `EFAULT` for a NULL that was not allowed, `EPERM` of a
    /// container's filter. All but the first have other reasons, too, so the short way is given up
    /// only when the long one has worked.
    ///
    /// # Errors
    /// What the way that was taken last says.
    // Always, as in `meta`: what comes back may be large.
    #[inline(always)]
    pub fn or_else<T>(
        &self,
        short: impl FnMut() -> Result<T>,
        long: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        // Relaxed: nothing else is read by it.
        if !self.is_closed.load(Ordering::Relaxed) {
            match retry(short) {
                Err(Errno::ENOSYS | Errno::EINVAL | Errno::EFAULT | Errno::EPERM) => {}
                done => return done,
            }
        }
        let done = retry(long);
        if done.is_ok() {
            self.is_closed.store(true, Ordering::Relaxed);
        }
        done
    }
}

impl Default for Shortcut {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether openat2(2) can be used. Linux has it since 5.6; filters may answer `EPERM` for it.
pub fn has_openat2() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let Ok(root) = open::directory(Path::new("/")) else {
            return false;
        };
        let flags = libc::O_PATH.unsigned_abs();
        match open::openat2_beneath(root.as_fd(), c".", flags, 0) {
            Ok(_) => true,
            Err(errno) => errno != Errno::ENOSYS && errno != Errno::EPERM,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortcut_is_given_up_only_when_the_long_way_works() {
        let shortcut = Shortcut::new();
        let tries = std::cell::Cell::new(0);
        let short = |answer: Result<()>| {
            tries.set(tries.get() + 1);
            answer
        };
        let refused = || Err(Errno::EPERM);
        assert_eq!(shortcut.or_else(|| short(Ok(())), refused), Ok(()));
        assert_eq!(
            shortcut.or_else(|| short(Err(Errno::EROFS)), || Ok(())),
            Err(Errno::EROFS)
        );
        let both = shortcut.or_else(|| short(Err(Errno::EPERM)), refused);
        assert_eq!((both, tries.get()), (Err(Errno::EPERM), 3));
        assert_eq!(
            shortcut.or_else(|| short(Err(Errno::ENOSYS)), || Ok(())),
            Ok(())
        );
        assert_eq!(
            shortcut.or_else(|| short(Ok(())), refused),
            Err(Errno::EPERM)
        );
        assert_eq!(tries.get(), 4, "not tried any more");
    }

    #[test]
    fn shortcut_gives_what_the_way_gave_that_worked() {
        let shortcut = Shortcut::new();
        assert_eq!(shortcut.or_else(|| Ok(1), || Ok(2)), Ok(1));
        assert_eq!(shortcut.or_else(|| Err(Errno::EFAULT), || Ok(2)), Ok(2));
        assert_eq!(shortcut.or_else(|| Ok(1), || Ok(2)), Ok(2));
    }
}
