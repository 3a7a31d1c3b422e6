//! What: how often the calling thread has waited.
//!
//! In: nothing. Out: a count that grows whenever the thread sleeps: for a disk, a server, a lock, a
//! message. It does not grow when the thread only has to leave its CPU to another for a while,
//! which a clock cannot tell from waiting. By getrusage(2).
#![expect(unsafe_code, reason = "system calls")]

use std::mem::MaybeUninit;

/// How often the calling thread has given up its CPU by itself.
pub fn of_this_thread() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes at most one rusage, for which there is room; the only errors are a
    // wrong selector and a wrong address, and then all of it stays zero.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    // SAFETY: it was zeroed, and every field is an integer.
    let usage = unsafe { usage.assume_init() };
    u64::try_from(usage.ru_nvcsw).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn count_grows_with_each_sleep() {
        let before = of_this_thread();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(of_this_thread() >= before + 3);
    }
}
