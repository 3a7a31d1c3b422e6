//! What: what the host knows: CPU time of a daemon's processes and of this thread, and the few
//! system calls that the standard library lacks.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::CStr;
use std::fs;
use std::mem::MaybeUninit;
use std::time::Duration;

/// CPU time of `pid`, all its threads and all its descendants so far, user and system.
pub(crate) fn cpu_time_of_tree(pid: u32) -> Duration {
    let own = fs::read_dir(format!("/proc/{pid}/task")).map_or(Duration::ZERO, |tasks| {
        tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|text| text.split_whitespace().next()?.parse().ok())
            .map(Duration::from_nanos)
            .sum()
    });
    own + children(pid).into_iter().map(cpu_time_of_tree).sum()
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// CPU time of the calling thread.
pub(crate) fn own_cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is one writable timespec.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(done, 0, "clock_gettime");
    let part = |value: i64| u64::try_from(value).expect("CPU time is not negative");
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// statfs(2).
pub(crate) fn statfs(path: &CStr) {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path ends with a NUL, and `stat` is writable for one struct statfs.
    let done = unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) };
    assert_eq!(done, 0, "statfs");
}
