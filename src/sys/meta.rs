//! What: attributes of files and file systems: statx(2), chmod(2), chown(2), utimensat(2),
//! statvfs(3).
//!
//! In: a pinned or open descriptor, or a directory and one name. Out: typed values. Does not:
//! translate ids or decide what a guest may see.
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{CStr, c_int, c_uint};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::sys::errno::{Errno, Result};
use crate::sys::kernel::Shortcut;
use crate::sys::proc_fd::{FdName, ProcFd};
use crate::sys::{check, check_long, retry};

/// Nanoseconds in a second.
const NANOS_END: u32 = 1_000_000_000;

/// The mount by a number that is never given out again, since Linux 6.8.
const STATX_MNT_ID_UNIQUE: c_uint = 0x4000;

/// `__NR_fchmodat2`, Linux 6.6.
const FCHMODAT2: libc::c_long = 452;

/// What is asked of statx(2) every time: the bits that stat(2) has, the time of birth, and the
/// mount, which with device and inode number tells files apart. Linux fills in one of the two
/// mount ids, the unique one if it has it; bits that it does not know it passes over.
const STATX_WANTED: c_uint =
    libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID | STATX_MNT_ID_UNIQUE;

/// The bits of a statx mask that mean attributes of a file, without the mount id.
pub const STATX_ATTRIBUTES: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME;

/// Type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A UNIX socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// None that Linux knows; a broken file system.
    Unknown,
}

impl FileType {
    /// The type in `st_mode`.
    pub const fn of_mode(mode: u32) -> Self {
        match mode & libc::S_IFMT {
            libc::S_IFREG => FileType::Regular,
            libc::S_IFDIR => FileType::Directory,
            libc::S_IFLNK => FileType::Symlink,
            libc::S_IFIFO => FileType::Fifo,
            libc::S_IFSOCK => FileType::Socket,
            libc::S_IFCHR => FileType::CharDevice,
            libc::S_IFBLK => FileType::BlockDevice,
            _ => FileType::Unknown,
        }
    }
}

/// Major and minor number of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// A point in time; `nanos` is below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostTime {
    /// Seconds since 1970.
    pub secs: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

/// A time for [`set_times`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeChange {
    /// Leave it.
    Keep,
    /// The host's present time.
    Now,
    /// This time.
    To(HostTime),
}

/// What statx(2) tells of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileStat {
    /// `STATX_*` bits of what the file system filled in.
    pub mask: u32,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Preferred block size in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: HostTime,
    /// Last change of the contents.
    pub mtime: HostTime,
    /// Last change of the inode.
    pub ctime: HostTime,
    /// Creation, where the file system keeps it.
    pub btime: Option<HostTime>,
    /// The device that a device node stands for.
    pub rdev: DeviceNumber,
    /// The device of the file system.
    pub dev: DeviceNumber,
    /// The mount through which the file was reached; 0 before Linux 5.8. Before Linux 6.8 the
    /// number may be given to another mount when this one is gone.
    pub mount_id: u64,
    /// `STATX_ATTR_*` bits that are set.
    pub attributes: u64,
    /// `STATX_ATTR_*` bits that are meaningful.
    pub attributes_mask: u64,
}

impl FileStat {
    /// The type of the file.
    pub const fn file_type(&self) -> FileType {
        FileType::of_mode(self.mode)
    }

    // Always, here and in what leads here: the values are large, and each call that is not inlined
    // copies them once more, which shows in a GETATTR (200 of 2,600 instructions).
    #[inline(always)]
    fn from_host(raw: &libc::statx) -> Self {
        let time = |t: &libc::statx_timestamp| HostTime {
            secs: t.tv_sec,
            nanos: t.tv_nsec,
        };
        FileStat {
            mask: raw.stx_mask,
            mode: u32::from(raw.stx_mode),
            nlink: raw.stx_nlink,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            ino: raw.stx_ino,
            size: raw.stx_size,
            blocks: raw.stx_blocks,
            blksize: raw.stx_blksize,
            atime: time(&raw.stx_atime),
            mtime: time(&raw.stx_mtime),
            ctime: time(&raw.stx_ctime),
            btime: (raw.stx_mask & libc::STATX_BTIME != 0).then(|| time(&raw.stx_btime)),
            rdev: DeviceNumber {
                major: raw.stx_rdev_major,
                minor: raw.stx_rdev_minor,
            },
            dev: DeviceNumber {
                major: raw.stx_dev_major,
                minor: raw.stx_dev_minor,
            },
            mount_id: if raw.stx_mask & (libc::STATX_MNT_ID | STATX_MNT_ID_UNIQUE) != 0 {
                raw.stx_mnt_id
            } else {
                0
            },
            attributes: raw.stx_attributes,
            attributes_mask: raw.stx_attributes_mask,
        }
    }
}

/// Attributes of the file that `fd` holds.
///
/// # Errors
/// As statx(2).
#[inline(always)]
pub fn stat_fd(fd: BorrowedFd<'_>) -> Result<FileStat> {
    raw_statx_fd(fd, STATX_WANTED).map(|raw| FileStat::from_host(&raw))
}

/// Attributes of `name` in `directory`: of the link itself if it is one, and without mounting
/// anything on the way.
///
/// # Errors
/// As statx(2), among them `ENOENT` and `ENOTDIR`.
#[inline(always)]
pub fn stat_at(directory: BorrowedFd<'_>, name: &CStr) -> Result<FileStat> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let raw = retry(|| raw_statx(directory, Some(name), flags, STATX_WANTED))?;
    Ok(FileStat::from_host(&raw))
}

/// Type and permission bits of the file that `fd` holds, and nothing else: the cheapest question.
///
/// # Errors
/// As statx(2).
pub fn mode_of(fd: BorrowedFd<'_>) -> Result<u32> {
    let wanted = libc::STATX_TYPE | libc::STATX_MODE;
    raw_statx_fd(fd, wanted).map(|raw| u32::from(raw.stx_mode))
}

/// Since Linux 6.11 the path may be NULL, which spares the kernel a look at it: 50 ns of 450. Until
/// then that is `EFAULT`.
#[inline(always)]
fn raw_statx_fd(fd: BorrowedFd<'_>, wanted: c_uint) -> Result<libc::statx> {
    static WITHOUT_PATH: Shortcut = Shortcut::new();
    let stat = |path| raw_statx(fd, path, libc::AT_EMPTY_PATH, wanted);
    WITHOUT_PATH.or_else(|| stat(None), || stat(Some(c"")))
}

#[inline(always)]
fn raw_statx(
    at: BorrowedFd<'_>,
    name: Option<&CStr>,
    flags: c_int,
    wanted: c_uint,
) -> Result<libc::statx> {
    let mut raw = MaybeUninit::<libc::statx>::uninit();
    let name = name.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the name is NUL-terminated, or NULL, which Linux refuses where it may not be, and
    // `raw` is writable memory for one struct statx; both outlive the call. The raw call, because
    // libc's emulation has no mount ids.
    let done = unsafe {
        libc::syscall(
            libc::SYS_statx,
            at.as_raw_fd(),
            name,
            flags,
            wanted,
            raw.as_mut_ptr(),
        )
    };
    check_long(done)?;
    // SAFETY: statx(2) has succeeded, so the kernel has written the whole struct.
    Ok(unsafe { raw.assume_init() })
}

/// chmod(2) of the file that `pinned` holds.
///
/// # Errors
/// As chmod(2); `EOPNOTSUPP` for a symbolic link.
pub fn set_mode(proc_fd: &ProcFd, pinned: BorrowedFd<'_>, mode: u32) -> Result<()> {
    static DIRECT: Shortcut = Shortcut::new();
    let mode = mode & 0o7777;
    DIRECT.or_else(
        || {
            // SAFETY: the path is an empty C string. Other architectures have the same number.
            let done = unsafe {
                libc::syscall(
                    FCHMODAT2,
                    pinned.as_raw_fd(),
                    c"".as_ptr(),
                    mode,
                    libc::AT_EMPTY_PATH,
                )
            };
            check_long(done).map(drop)
        },
        || {
            let name = FdName::new(pinned);
            let directory = proc_fd.as_fd().as_raw_fd();
            // SAFETY: the name is NUL-terminated, only read, and outlives the call.
            check(unsafe { libc::fchmodat(directory, name.as_c_str().as_ptr(), mode, 0) }).map(drop)
        },
    )
}

/// chown(2) of the file that `pinned` holds; `None` leaves an id as it is.
///
/// # Errors
/// As chown(2).
pub fn set_owner(pinned: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    retry(|| {
        // SAFETY: the path is an empty C string; u32::MAX is the kernel's "leave unchanged".
        let done = unsafe {
            libc::fchownat(
                pinned.as_raw_fd(),
                c"".as_ptr(),
                uid.unwrap_or(u32::MAX),
                gid.unwrap_or(u32::MAX),
                libc::AT_EMPTY_PATH,
            )
        };
        check(done)
    })?;
    Ok(())
}

/// Takes set-user-id, set-group-id and file capabilities off the file that `pinned` holds: a
/// chown(2) that changes no owner. The kernel does that in one step, under the file's own lock,
/// so no other change of mode is lost, as one could be between a stat and a chmod(2).
/// Set-group-id without the right to execute for the group is no privilege (it once meant
/// mandatory locking) and stays where the daemon has `CAP_FSETID`.
///
/// # Errors
/// As chown(2): `EPERM` for who neither owns the file nor has `CAP_FOWNER`.
pub fn drop_set_ids(pinned: BorrowedFd<'_>) -> Result<()> {
    set_owner(pinned, None, None)
}

/// utimensat(2) of the file that `pinned` holds, of a symbolic link itself too.
///
/// # Errors
/// As utimensat(2); `EINVAL` for nanoseconds beyond a second.
pub fn set_times(
    proc_fd: &ProcFd,
    pinned: BorrowedFd<'_>,
    atime: TimeChange,
    mtime: TimeChange,
) -> Result<()> {
    static DIRECT: Shortcut = Shortcut::new();
    let times = [timespec(atime)?, timespec(mtime)?];
    let set = |directory: BorrowedFd<'_>, path: &CStr, flags| {
        // SAFETY: the path is NUL-terminated and `times` holds two timespecs; both are only
        // read and outlive the call.
        let done =
            unsafe { libc::utimensat(directory.as_raw_fd(), path.as_ptr(), times.as_ptr(), flags) };
        check(done).map(drop)
    };
    DIRECT.or_else(
        || set(pinned, c"", libc::AT_EMPTY_PATH),
        || set(proc_fd.as_fd(), FdName::new(pinned).as_c_str(), 0),
    )
}

fn timespec(change: TimeChange) -> Result<libc::timespec> {
    let (secs, nanos) = match change {
        TimeChange::Keep => (0, libc::UTIME_OMIT),
        TimeChange::Now => (0, libc::UTIME_NOW),
        // UTIME_NOW and UTIME_OMIT lie beyond a second, so this keeps them apart from times.
        TimeChange::To(time) if time.nanos < NANOS_END => (time.secs, i64::from(time.nanos)),
        TimeChange::To(_) => return Err(Errno::EINVAL),
    };
    Ok(libc::timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    })
}

/// Totals of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsStat {
    /// Blocks in all, in units of `fragment_size_bytes`.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for unprivileged users.
    pub blocks_available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Preferred transfer size in bytes.
    pub block_size_bytes: u64,
    /// Unit of the block counts in bytes.
    pub fragment_size_bytes: u64,
    /// Longest name in bytes.
    pub name_len_max: u64,
}

/// statvfs(3) of the file system that holds `fd`.
///
/// # Errors
/// As statvfs(3).
pub fn stat_fs(fd: BorrowedFd<'_>) -> Result<FsStat> {
    let mut raw = MaybeUninit::<libc::statvfs>::uninit();
    retry(|| {
        // SAFETY: `raw` is writable memory for one struct statvfs and outlives the call.
        let done = unsafe { libc::fstatvfs(fd.as_raw_fd(), raw.as_mut_ptr()) };
        check(done)
    })?;
    // SAFETY: fstatvfs(3) has succeeded, so libc has written the whole struct.
    let raw = unsafe { raw.assume_init_ref() };
    Ok(FsStat {
        blocks: raw.f_blocks,
        blocks_free: raw.f_bfree,
        blocks_available: raw.f_bavail,
        files: raw.f_files,
        files_free: raw.f_ffree,
        block_size_bytes: raw.f_bsize,
        fragment_size_bytes: raw.f_frsize,
        name_len_max: raw.f_namemax,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_descriptor_is_the_same_with_and_without_a_path() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let with = raw_statx(null.as_fd(), Some(c""), libc::AT_EMPTY_PATH, STATX_WANTED).unwrap();
        let stat = stat_fd(null.as_fd()).unwrap();
        let of_path = FileStat::from_host(&with);
        assert_eq!(
            (stat.ino, stat.dev, stat.rdev),
            (of_path.ino, of_path.dev, of_path.rdev)
        );
        assert_eq!((stat.mode, stat.mount_id), (of_path.mode, of_path.mount_id));
    }
}
