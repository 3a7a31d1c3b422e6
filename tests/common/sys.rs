//! What: the few system calls that tests need and the standard library does not have.
//!
//! In: plain values. Out: owned descriptors and results. One unsafe call per function.
#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

fn cvt(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// An anonymous file of `len` bytes that other processes can map.
pub(crate) fn memfd(len: u64) -> File {
    // SAFETY: the name is a NUL-terminated string that lives for the call.
    let result = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
    let fd = cvt(result).unwrap_or_else(|error| panic!("memfd_create: {error}"));
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(len)
        .unwrap_or_else(|error| panic!("cannot size guest memory to {len} bytes: {error}"));
    file
}

/// Waits until `fd` is readable; false when `timeout` passes first.
pub(crate) fn wait_readable(fd: &impl AsRawFd, timeout: Duration) -> bool {
    let deadline = std::time::Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let mut poll = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let timeout_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid pollfd, counted as one.
        let result = unsafe { libc::poll(&raw mut poll, 1, timeout_ms) };
        match cvt(result) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Sends `signal` to a process that the caller started and has not waited for.
pub(crate) fn kill(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).expect("Linux process ids are positive i32");
    // SAFETY: kill has no memory arguments.
    unsafe { libc::kill(pid, signal) };
}

pub(crate) fn effective_uid() -> u32 {
    // SAFETY: always succeeds, no arguments.
    unsafe { libc::geteuid() }
}

/// Clears FD_CLOEXEC, so that a child inherits `fd` under its number.
pub(crate) fn make_inheritable(fd: &impl AsRawFd) -> RawFd {
    let raw = fd.as_raw_fd();
    // SAFETY: F_SETFD takes an integer.
    let result = unsafe { libc::fcntl(raw, libc::F_SETFD, 0) };
    cvt(result).unwrap_or_else(|error| panic!("fcntl(F_SETFD): {error}"));
    raw
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).expect("test paths have no NUL")
}

/// mknod(2) on the host; `mode` holds type and permissions.
pub(crate) fn mknod(path: &Path, mode: u32, device: u64) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: the path is NUL-terminated and lives for the call.
    cvt(unsafe { libc::mknod(path.as_ptr(), mode, device) }).map(drop)
}

/// setxattr(2) on the host.
pub(crate) fn set_xattr(path: &Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: both strings are NUL-terminated, the value has value.len() bytes, all live.
    let result = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    cvt(result).map(drop)
}

/// getxattr(2) on the host.
pub(crate) fn get_xattr(path: &Path, name: &CStr) -> io::Result<Vec<u8>> {
    let path = c_path(path);
    let mut value = vec![0; 65536];
    // SAFETY: both strings are NUL-terminated, the buffer has value.len() bytes, all live.
    let len = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    value.truncate(len);
    Ok(value)
}

/// Birth time of `path` in seconds and nanoseconds, where the file system keeps one.
pub(crate) fn birth_time(path: &Path) -> Option<(i64, u32)> {
    let path = c_path(path);
    let mut out = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is NUL-terminated and `out` has room for one statx.
    let result = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            libc::STATX_BTIME,
            out.as_mut_ptr(),
        )
    };
    cvt(result).unwrap_or_else(|error| panic!("statx on the host: {error}"));
    // SAFETY: zero is a valid value for every field, and statx has filled the rest.
    let out = unsafe { out.assume_init() };
    (out.stx_mask & libc::STATX_BTIME != 0).then_some((out.stx_btime.tv_sec, out.stx_btime.tv_nsec))
}

/// Takes (`F_RDLCK`, `F_WRLCK`) or gives back (`F_UNLCK`) a lock that belongs to the open file,
/// on the bytes from `start` to `end`, without waiting.
pub(crate) fn ofd_lock(file: &File, (start, end): (i64, i64), kind: i32) -> io::Result<()> {
    let lock = libc::flock {
        l_type: i16::try_from(kind).expect("a small constant"),
        l_whence: 0,
        l_start: start,
        l_len: end - start + 1,
        l_pid: 0,
    };
    // SAFETY: `lock` is valid, only read, and outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    cvt(result).map(drop)
}

/// Both ends of a pipe, the reading one first.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors.
    let result = unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) };
    cvt(result).unwrap_or_else(|error| panic!("pipe: {error}"));
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let read = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    // SAFETY: as above.
    let write = unsafe { OwnedFd::from_raw_fd(fds[1]) };
    (read, write)
}

/// Sets the soft limit of open descriptors of a process that the caller started.
pub(crate) fn limit_descriptors(pid: u32, soft: u64) {
    limit(pid, libc::RLIMIT_NOFILE, soft);
}

/// Sets the soft limit of the size of files in bytes of a process that the caller started.
pub(crate) fn limit_file_size(pid: u32, soft: u64) {
    limit(pid, libc::RLIMIT_FSIZE, soft);
}

#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

fn limit(pid: u32, resource: Resource, soft: u64) {
    let pid = i32::try_from(pid).expect("Linux process ids are positive i32");
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: no new limit, and room for the old one.
    let result = unsafe { libc::prlimit(pid, resource, std::ptr::null(), &raw mut limit) };
    cvt(result).unwrap_or_else(|error| panic!("prlimit: {error}"));
    limit.rlim_cur = soft.min(limit.rlim_max);
    // SAFETY: a valid new limit, and no room for the old one.
    let result = unsafe { libc::prlimit(pid, resource, &raw const limit, std::ptr::null_mut()) };
    cvt(result).unwrap_or_else(|error| panic!("prlimit: {error}"));
}

/// The first page of a file of the host, mapped for writing.
#[derive(Debug)]
pub(crate) struct MappedPage {
    ptr: *mut u8,
}

const PAGE: usize = 4096;

impl MappedPage {
    /// Of a file that is open for reading and writing and has a page.
    pub(crate) fn new(file: &impl AsRawFd) -> Self {
        // SAFETY: a fresh shared mapping, wherever the kernel likes.
        let ptr = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(ptr, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        MappedPage { ptr: ptr.cast() }
    }

    /// Writes the first byte.
    pub(crate) fn store(&self, byte: u8) {
        // SAFETY: the page is mapped for writing for the life of the value.
        unsafe { self.ptr.write_volatile(byte) };
    }
}

impl Drop for MappedPage {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nothing else refers to it.
        unsafe { libc::munmap(self.ptr.cast(), PAGE) };
    }
}

/// Mounts the file system of FUSE that `device` serves, for every user.
pub(crate) fn mount_fuse(device: &impl AsRawFd, at: &Path) -> io::Result<()> {
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
        device.as_raw_fd()
    );
    let options = CString::new(options).expect("no NUL in it");
    let at = CString::new(at.as_os_str().as_encoded_bytes()).expect("no NUL in it");
    // SAFETY: all strings are NUL-terminated and live for the call.
    let done = unsafe {
        libc::mount(
            c"slow-store".as_ptr(),
            at.as_ptr(),
            c"fuse".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV,
            options.as_ptr().cast(),
        )
    };
    cvt(done).map(drop)
}

/// Unmounts a file system of FUSE; whoever waits for it fails.
pub(crate) fn unmount(at: &Path) {
    let at = CString::new(at.as_os_str().as_encoded_bytes()).expect("no NUL in it");
    for flags in [libc::MNT_FORCE, libc::MNT_DETACH] {
        // SAFETY: the string is NUL-terminated and lives for the call.
        unsafe { libc::umount2(at.as_ptr(), flags) };
    }
}

/// Throws the clean pages of a part of a file out of the host's memory.
pub(crate) fn drop_pages(file: &File, offset: i64, len: i64) {
    // SAFETY: no memory arguments.
    let done =
        unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(done, 0, "posix_fadvise");
}

/// Tells the kernel to read nothing ahead for this descriptor.
pub(crate) fn read_nothing_ahead(file: &File) {
    // SAFETY: no memory arguments.
    let done = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
    assert_eq!(done, 0, "posix_fadvise");
}

/// CPU time of a process so far, user and system, with that of threads which have ended; none when
/// there is no such process.
pub(crate) fn cpu_time_of(pid: u32) -> Option<Duration> {
    let pid = i32::try_from(pid).expect("Linux process ids are positive i32");
    let mut clock = 0;
    // SAFETY: `clock` is one writable clock id.
    match unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } {
        0 => time_of(clock),
        _ => None,
    }
}

/// What a clock of this system says, none if there is no such clock.
pub(crate) fn time_of(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is one writable timespec.
    cvt(unsafe { libc::clock_gettime(clock, &raw mut time) }).ok()?;
    let part = |value: i64| u64::try_from(value).expect("no time before 1970");
    Some(Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec)))
}
