//! What: names for files that outlive descriptors: name_to_handle_at(2), open_by_handle_at(2).
//!
//! In: a pinned or open file. Out: a [`FileHandle`], and from that a pinned file again, which
//! is the same one or none: handles carry a generation number that an inode number which is used
//! again does not have. Invariant: a [`FileHandle`] comes from the kernel only; no guest can
//! make one up. Does not: know which file systems have handles worth keeping (see
//! `passthrough::store::mounts`).
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{CStr, c_int, c_uint};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::thread;

use crate::sys::errno::{Errno, Result};
use crate::sys::{check_long, retry};

/// Longest handle in bytes, `MAX_HANDLE_SZ` of Linux.
const HANDLE_LEN_MAX: usize = 128;

/// Handles up to this length are stored in place: those of ext4 (8 bytes), tmpfs and xfs (12)
/// and btrfs (20) are. It is what fits beside a pointer and a length.
const SHORT_LEN_MAX: usize = 22;

/// How often a handle is tried that may be about to become stale.
const PIN_ATTEMPTS: usize = 4;

/// `struct file_handle` of open_by_handle_at(2) with room for the longest handle.
#[repr(C)]
struct RawHandle {
    handle_bytes: c_uint,
    handle_type: c_int,
    bytes: [u8; HANDLE_LEN_MAX],
}

/// What tells a file from all others that its file system ever held, for as long as it exists.
/// Two of them are equal when they name the same file of the same file system.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FileHandle {
    kind: c_int,
    bytes: Bytes,
}

/// Bytes after `len` are zero, so that equal handles compare equal.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Bytes {
    Short { len: u8, bytes: [u8; SHORT_LEN_MAX] },
    Long(Box<[u8]>),
}

impl FileHandle {
    /// The handle of the file that `fd` holds.
    ///
    /// # Errors
    /// As name_to_handle_at(2): `EOPNOTSUPP` where the file system has none, `EOVERFLOW` where
    /// they are longer than Linux allows.
    pub fn of_fd(fd: BorrowedFd<'_>) -> Result<Self> {
        name_to_handle(fd, c"", libc::AT_EMPTY_PATH)
    }

    /// The handle of `name` in `directory`; of a link itself if it is one.
    ///
    /// # Errors
    /// As [`Self::of_fd`], `ENOENT`, `ENOTDIR`.
    pub fn of_name(directory: BorrowedFd<'_>, name: &CStr) -> Result<Self> {
        name_to_handle(directory, name, 0)
    }

    /// Pins the file again. `mount` is any file or directory opened (not just pinned) on the
    /// mount through which the file shall be reached. Needs `CAP_DAC_READ_SEARCH`.
    ///
    /// # Errors
    /// As open_by_handle_at(2): `ESTALE` when the file is gone, `EPERM` without the capability.
    pub fn pin(&self, mount: BorrowedFd<'_>) -> Result<OwnedFd> {
        let mut raw = RawHandle::new();
        raw.handle_type = self.kind;
        let bytes = self.as_bytes();
        raw.handle_bytes = c_uint::try_from(bytes.len()).map_err(|_| Errno::EOVERFLOW)?;
        for (to, from) in raw.bytes.iter_mut().zip(bytes) {
            *to = *from;
        }
        for _ in 1..PIN_ATTEMPTS {
            match raw.pin(mount) {
                // The inode number is just being given to a new file: Linux (6.18 at least) says
                // so by this error, and ESTALE a moment later. Drop this loop when it no longer
                // does.
                Err(Errno::ENOMEM) => thread::yield_now(),
                done => return done,
            }
        }
        raw.pin(mount)
    }

    fn new(kind: c_int, handle: &[u8]) -> Self {
        let bytes = match u8::try_from(handle.len()) {
            Ok(len) if handle.len() <= SHORT_LEN_MAX => {
                let mut bytes = [0; SHORT_LEN_MAX];
                for (to, from) in bytes.iter_mut().zip(handle) {
                    *to = *from;
                }
                Bytes::Short { len, bytes }
            }
            _ => Bytes::Long(handle.into()),
        };
        FileHandle { kind, bytes }
    }

    fn as_bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Bytes::Long(bytes) => bytes,
        }
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileHandle({}, {:02x?})", self.kind, self.as_bytes())
    }
}

impl RawHandle {
    /// One open_by_handle_at(2).
    fn pin(&mut self, mount: BorrowedFd<'_>) -> Result<OwnedFd> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let opened = retry(|| {
            // SAFETY: `self` is a struct file_handle with `handle_bytes` valid bytes behind its
            // head; it outlives the call.
            let fd = unsafe {
                libc::syscall(
                    libc::SYS_open_by_handle_at,
                    mount.as_raw_fd(),
                    &raw mut *self,
                    flags,
                )
            };
            check_long(fd)
        })?;
        let fd = c_int::try_from(opened).map_err(|_| Errno::EIO)?;
        // SAFETY: the kernel has just returned `fd` as a new descriptor, so it is open and
        // nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn new() -> Self {
        RawHandle {
            handle_bytes: 0,
            handle_type: 0,
            bytes: [0; HANDLE_LEN_MAX],
        }
    }
}

fn name_to_handle(at: BorrowedFd<'_>, name: &CStr, flags: c_int) -> Result<FileHandle> {
    let mut raw = RawHandle::new();
    // The room that is offered. 128 fits every unsigned integer.
    raw.handle_bytes = c_uint::try_from(HANDLE_LEN_MAX).map_err(|_| Errno::EOVERFLOW)?;
    // Not used: statx(2) tells the mount, and without a number that may be given out again.
    let mut mount_id: c_int = 0;
    retry(|| {
        // SAFETY: the name is NUL-terminated; `raw` is a struct file_handle with `handle_bytes`
        // bytes of room behind its head; `mount_id` is writable; all outlive the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                at.as_raw_fd(),
                name.as_ptr(),
                &raw mut raw,
                &raw mut mount_id,
                flags,
            )
        };
        check_long(done)
    })?;
    let len = usize::try_from(raw.handle_bytes).map_err(|_| Errno::EOVERFLOW)?;
    let bytes = raw.bytes.get(..len).ok_or(Errno::EOVERFLOW)?;
    Ok(FileHandle::new(raw.handle_type, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use crate::sys::meta;
    use crate::sys::open;

    fn is_permitted_or_says_why_not(test: &str) -> bool {
        let base = File::open(std::env::temp_dir()).unwrap();
        let opened = FileHandle::of_fd(base.as_fd()).and_then(|handle| handle.pin(base.as_fd()));
        if let Err(errno) = &opened {
            println!("{test}: skipped, because file handles do not work here: {errno}");
        }
        opened.is_ok()
    }

    #[test]
    fn handle_of_short_and_long_bytes_keeps_them_and_compares_by_them() {
        for len in [0, 1, SHORT_LEN_MAX, SHORT_LEN_MAX + 1, HANDLE_LEN_MAX] {
            let bytes = vec![7; len];
            let handle = FileHandle::new(3, &bytes);
            assert_eq!(handle.as_bytes(), bytes, "{len}");
            assert_eq!(handle, FileHandle::new(3, &bytes), "{len}");
            assert_ne!(handle, FileHandle::new(4, &bytes), "{len}");
        }
        assert_ne!(FileHandle::new(3, &[0]), FileHandle::new(3, &[0, 0]));
        assert!(size_of::<FileHandle>() <= 32);
    }

    #[test]
    fn handle_leads_back_to_files_of_every_kind_until_they_are_gone() {
        if !is_permitted_or_says_why_not("handle_leads_back") {
            return;
        }
        let base = std::env::temp_dir().join(format!("virtiofsd-handle-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        fs::write(base.join("file"), b"x").unwrap();
        fs::create_dir_all(base.join("dir")).unwrap();
        symlink("nowhere", base.join("link")).unwrap();
        let mount = File::open(&base).unwrap();
        for name in [c"file", c"dir", c"link"] {
            let by_name = FileHandle::of_name(mount.as_fd(), name).unwrap();
            let pinned = open::pin_beneath(mount.as_fd(), name).unwrap();
            assert_eq!(by_name, FileHandle::of_fd(pinned.as_fd()).unwrap());
            let again = by_name.pin(mount.as_fd()).unwrap();
            let (a, b) = (
                meta::stat_fd(pinned.as_fd()).unwrap(),
                meta::stat_fd(again.as_fd()).unwrap(),
            );
            assert_eq!((a.ino, a.mount_id), (b.ino, b.mount_id), "{name:?}");
        }
        let gone = FileHandle::of_name(mount.as_fd(), c"file").unwrap();
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(gone.pin(mount.as_fd()).unwrap_err(), Errno::ESTALE);
    }

    #[test]
    fn handle_of_a_file_system_without_any_is_refused() {
        let proc = File::open("/proc").unwrap();
        let refused = FileHandle::of_fd(proc.as_fd()).unwrap_err();
        assert_eq!(refused, Errno::EOPNOTSUPP);
    }
}
