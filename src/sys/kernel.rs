//! What: facts about the running kernel, found out once.
//!
//! In: nothing. Out: answers that never change while the process runs. Does not: read version
//! numbers; what counts is whether the call works here, under this container's filter.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;

use crate::sys::errno::Errno;
use crate::sys::open;

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
