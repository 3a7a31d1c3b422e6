//! What: what the host knows: CPU time of a daemon's processes and of this thread, and the system
//! calls that the standard library lacks. Each of them must succeed, or the benchmark ends.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::CStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::common::{sys, usize_of64};

use super::driver::{PAYLOAD_LEN, Slots};

/// CPU time of `pid` and all its descendants so far, user and system.
pub(crate) fn cpu_time_of_tree(pid: u32) -> Duration {
    let own = sys::cpu_time_of(pid).unwrap_or_default();
    own + children(pid).into_iter().map(cpu_time_of_tree).sum()
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// What a daemon has: all its processes together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Footprint {
    /// Memory of its own in bytes, without that of the guest and without files.
    pub(crate) memory: u64,
    /// Open descriptors.
    pub(crate) descriptors: usize,
}

pub(crate) fn footprint_of_tree(pid: u32) -> Footprint {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| {
        let line = smaps.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
    };
    let kib = field("Pss_Anon:").expect("Linux 5.4 or newer tells Pss_Anon, to root");
    let own = Footprint {
        memory: kib * 1024 + field("Swap:").unwrap_or_default() * 1024,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
    };
    children(pid).into_iter().fold(own, |sum, pid| {
        let other = footprint_of_tree(pid);
        Footprint {
            memory: sum.memory + other.memory,
            descriptors: sum.descriptors + other.descriptors,
        }
    })
}

/// A process and all its descendants.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let below = children(pid).into_iter().flat_map(tree);
    std::iter::once(pid).chain(below).collect()
}

/// Whether every thread of a process has a tracer.
pub(crate) fn is_traced(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.contains("TracerPid:") && !status.contains("TracerPid:\t0\n")
    })
}

/// CPU time of the calling thread.
pub(crate) fn own_cpu_time() -> Duration {
    sys::time_of(libc::CLOCK_THREAD_CPUTIME_ID).expect("each thread has this clock")
}

/// The payload of a slot, for direct system calls.
#[derive(Debug)]
pub(crate) struct Payload {
    slots: Slots,
    slot: usize,
}

impl Payload {
    pub(crate) fn new(slots: &Slots, slot: usize) -> Self {
        Payload {
            slots: slots.clone(),
            slot,
        }
    }

    fn ptr(&self, len: usize) -> *mut libc::c_void {
        assert!(len <= PAYLOAD_LEN, "the buffer is too short");
        self.slots.payload(self.slot).cast()
    }
}

fn must(what: &str, result: i64) -> i64 {
    assert!(result >= 0, "{what}: {}", std::io::Error::last_os_error());
    result
}

pub(crate) fn pread(file: BorrowedFd<'_>, buffer: &Payload, len: usize, offset: usize) {
    let offset = i64::try_from(offset).expect("a file offset");
    // SAFETY: the buffer is mapped and writable for `len` bytes; no reference to it is ever made.
    let done = unsafe { libc::pread(file.as_raw_fd(), buffer.ptr(len), len, offset) };
    assert_eq!(usize::try_from(done), Ok(len), "pread");
}

pub(crate) fn pwrite(file: BorrowedFd<'_>, buffer: &Payload, len: usize, offset: usize) {
    let offset = i64::try_from(offset).expect("a file offset");
    // SAFETY: the buffer is mapped and readable for `len` bytes.
    let done = unsafe { libc::pwrite(file.as_raw_fd(), buffer.ptr(len), len, offset) };
    assert_eq!(usize::try_from(done), Ok(len), "pwrite");
}

fn statx(dir: BorrowedFd<'_>, name: &CStr) -> i32 {
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    let mut out = MaybeUninit::<libc::statx>::uninit();
    // SAFETY: the name ends with a NUL, and `out` is writable for one struct statx.
    unsafe {
        libc::statx(
            dir.as_raw_fd(),
            name.as_ptr(),
            flags,
            libc::STATX_BASIC_STATS,
            out.as_mut_ptr(),
        )
    }
}

/// Attributes of `name` in `dir`, or of `dir` itself when the name is empty.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &CStr) {
    must("statx", statx(dir, name).into());
}

pub(crate) fn stat_missing_at(dir: BorrowedFd<'_>, name: &CStr) {
    assert_eq!(statx(dir, name), -1, "a missing name was found");
}

pub(crate) fn open_at(dir: BorrowedFd<'_>, name: &CStr, flags: i32) -> OwnedFd {
    let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: the name ends with a NUL.
    let fd = unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, 0o644) };
    must("openat", fd.into());
    // SAFETY: openat(2) has just returned it, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(crate) fn unlink_at(dir: BorrowedFd<'_>, name: &CStr, flags: i32) {
    // SAFETY: the name ends with a NUL.
    let done = unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), flags) };
    must("unlinkat", done.into());
}

pub(crate) fn mkdir_at(dir: BorrowedFd<'_>, name: &CStr) {
    // SAFETY: the name ends with a NUL.
    let done = unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), 0o755) };
    must("mkdirat", done.into());
}

pub(crate) fn chmod_at(dir: BorrowedFd<'_>, name: &CStr, mode: u32) {
    // SAFETY: the name ends with a NUL.
    let done = unsafe { libc::fchmodat(dir.as_raw_fd(), name.as_ptr(), mode, 0) };
    must("fchmodat", done.into());
}

pub(crate) fn rename_at(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) {
    let dir = dir.as_raw_fd();
    // SAFETY: both names end with a NUL.
    let done = unsafe { libc::renameat(dir, from.as_ptr(), dir, to.as_ptr()) };
    must("renameat", done.into());
}

pub(crate) fn readlink_at(dir: BorrowedFd<'_>, name: &CStr) {
    let mut target = [0; 4096];
    let room = target.as_mut_ptr();
    // SAFETY: the name ends with a NUL, and `target` is writable for its length.
    let len = unsafe { libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), room, target.len()) };
    must("readlinkat", i64::try_from(len).expect("64 bits"));
}

pub(crate) fn getxattr(file: BorrowedFd<'_>, name: &CStr) {
    let mut value = [0_u8; 256];
    let room = value.as_mut_ptr().cast();
    // SAFETY: the name ends with a NUL, and `value` is writable for its length.
    let len = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), room, value.len()) };
    must("fgetxattr", i64::try_from(len).expect("64 bits"));
}

pub(crate) fn statfs(dir: BorrowedFd<'_>) {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `stat` is writable for one struct statfs.
    let done = unsafe { libc::fstatfs(dir.as_raw_fd(), stat.as_mut_ptr()) };
    must("fstatfs", done.into());
}

/// Entries of a directory as getdents64(2) has them; returns how many bytes there are.
pub(crate) fn getdents(dir: BorrowedFd<'_>, buf: &mut [u8]) -> usize {
    // SAFETY: `buf` is writable for its length.
    let len = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            dir.as_raw_fd(),
            buf.as_mut_ptr(),
            buf.len(),
        )
    };
    usize_of64(u64::try_from(must("getdents64", len)).expect("a length"))
}
