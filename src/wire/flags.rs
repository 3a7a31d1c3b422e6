//! What: every flag word of the protocol as a type; each bit is defined exactly once, here.
//!
//! In: integers from the wire (unknown bits are kept by `from_bits_retain` where they must pass
//! through, cut by `from_bits_truncate` where only known ones count). Out: typed flags.
//! Source: include/uapi/linux/fuse.h. Does not: decide policy.

use bitflags::bitflags;

bitflags! {
    /// Capabilities of a session: `flags` of INIT in the low half, `flags2` in the high half.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct SessionFlags: u64 {
        /// Readahead requests may be answered in any order.
        const ASYNC_READ = 1 << 0;
        /// fcntl locks are sent to the server.
        const POSIX_LOCKS = 1 << 1;
        /// GETATTR and others carry a file handle.
        const FILE_OPS = 1 << 2;
        /// `O_TRUNC` is part of OPEN.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// The server answers LOOKUP of `.` and `..`.
        const EXPORT_SUPPORT = 1 << 4;
        /// WRITE may carry more than one page.
        const BIG_WRITES = 1 << 5;
        /// The server applies the umask.
        const DONT_MASK = 1 << 6;
        /// Splice writes on /dev/fuse; nothing on virtio.
        const SPLICE_WRITE = 1 << 7;
        /// Splice moves on /dev/fuse; nothing on virtio.
        const SPLICE_MOVE = 1 << 8;
        /// Splice reads on /dev/fuse; nothing on virtio.
        const SPLICE_READ = 1 << 9;
        /// flock locks are sent to the server.
        const FLOCK_LOCKS = 1 << 10;
        /// ioctl on directories.
        const HAS_IOCTL_DIR = 1 << 11;
        /// Cached pages go away when a file's time or size changes.
        const AUTO_INVAL_DATA = 1 << 12;
        /// READDIRPLUS is understood.
        const DO_READDIRPLUS = 1 << 13;
        /// The guest chooses between READDIR and READDIRPLUS.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O may be asynchronous.
        const ASYNC_DIO = 1 << 15;
        /// The guest caches writes and owns size and times.
        const WRITEBACK_CACHE = 1 << 16;
        /// OPEN may be answered with ENOSYS.
        const NO_OPEN_SUPPORT = 1 << 17;
        /// LOOKUP and READDIR in one directory may run at once.
        const PARALLEL_DIROPS = 1 << 18;
        /// The server clears set-id bits on write, truncate and chown.
        const HANDLE_KILLPRIV = 1 << 19;
        /// The guest interprets POSIX ACLs.
        const POSIX_ACL = 1 << 20;
        /// Reads on an aborted connection fail with ECONNABORTED.
        const ABORT_ERROR = 1 << 21;
        /// `max_pages` of the INIT reply counts.
        const MAX_PAGES = 1 << 22;
        /// READLINK results are cached.
        const CACHE_SYMLINKS = 1 << 23;
        /// OPENDIR may be answered with ENOSYS.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// Cached pages go away only when the server says so.
        const EXPLICIT_INVAL_DATA = 1 << 25;
        /// `map_alignment` of the INIT reply counts.
        const MAP_ALIGNMENT = 1 << 26;
        /// `FUSE_ATTR_SUBMOUNT` is understood.
        const SUBMOUNTS = 1 << 27;
        /// The server clears set-id bits when a request says so.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR has the longer argument.
        const SETXATTR_EXT = 1 << 29;
        /// `flags2` counts.
        const INIT_EXT = 1 << 30;
        /// Creating requests carry a security context.
        const SECURITY_CTX = 1 << 32;
        /// Per-file DAX.
        const HAS_INODE_DAX = 1 << 33;
        /// Creating requests carry a supplementary group.
        const CREATE_SUPP_GROUP = 1 << 34;
        /// Expire-only invalidation.
        const HAS_EXPIRE_ONLY = 1 << 35;
        /// Shared mmap is allowed on direct I/O files.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// Passthrough through /dev/fuse.
        const PASSTHROUGH = 1 << 37;
        /// Handles of this mount cannot be opened by file handle.
        const NO_EXPORT_SUPPORT = 1 << 38;
        /// Requests can be sent again on demand.
        const HAS_RESEND = 1 << 39;
        /// Idmapped mounts.
        const ALLOW_IDMAP = 1 << 40;
        /// FUSE over io_uring, /dev/fuse only.
        const OVER_IO_URING = 1 << 41;
        /// The guest aborts the mount when a request takes too long.
        const REQUEST_TIMEOUT = 1 << 42;
    }
}

bitflags! {
    /// `open_flags` of a reply to OPEN, OPENDIR, CREATE and TMPFILE (`FOPEN_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenReplyFlags: u32 {
        /// Bypass the page cache.
        const DIRECT_IO = 1 << 0;
        /// Do not drop cached contents on open.
        const KEEP_CACHE = 1 << 1;
        /// The file cannot be sought.
        const NONSEEKABLE = 1 << 2;
        /// The guest may cache the directory listing.
        const CACHE_DIR = 1 << 3;
        /// The file is a stream.
        const STREAM = 1 << 4;
        /// No FLUSH on close.
        const NOFLUSH = 1 << 5;
        /// Direct writes need not be serialised by the guest.
        const PARALLEL_DIRECT_WRITES = 1 << 6;
        /// Passthrough through /dev/fuse; impossible on virtio.
        const PASSTHROUGH = 1 << 7;
    }
}

bitflags! {
    /// `O_*` flags of open(2) as the guest sent them. Bits keep the values of the guest's
    /// architecture, which is the host's: vhost-user shares memory within one machine.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct OpenFlags: u32 {
        /// Write only.
        const WRONLY = 0o1;
        /// Read and write.
        const RDWR = 0o2;
        /// Create.
        const CREAT = 0o100;
        /// Fail if it exists.
        const EXCL = 0o200;
        /// Empty the file.
        const TRUNC = 0o1000;
        /// Every write goes to the end.
        const APPEND = 0o2000;
        /// Never block.
        const NONBLOCK = 0o4000;
        /// Writes are durable as with fdatasync(2).
        const DSYNC = 0o10000;
        /// Writes are durable as with fsync(2); it includes [`Self::DSYNC`].
        const SYNC = 0o4_010_000;
        // Every other bit may arrive; `passthrough::open` says which of them pass.
        const _ = !0;
    }
}

bitflags! {
    /// `valid` of SETATTR (`FATTR_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct SetAttrValid: u32 {
        /// Permission bits.
        const MODE = 1 << 0;
        /// Owner.
        const UID = 1 << 1;
        /// Group.
        const GID = 1 << 2;
        /// Size.
        const SIZE = 1 << 3;
        /// Access time.
        const ATIME = 1 << 4;
        /// Modification time.
        const MTIME = 1 << 5;
        /// `fh` is valid.
        const FH = 1 << 6;
        /// Access time is now.
        const ATIME_NOW = 1 << 7;
        /// Modification time is now.
        const MTIME_NOW = 1 << 8;
        /// `lock_owner` is valid.
        const LOCKOWNER = 1 << 9;
        /// Change time.
        const CTIME = 1 << 10;
        /// Clear set-id bits.
        const KILL_SUIDGID = 1 << 11;
    }
}

bitflags! {
    /// `write_flags` of WRITE (`FUSE_WRITE_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct WriteFlags: u32 {
        /// Delayed write from the page cache.
        const CACHE = 1 << 0;
        /// `lock_owner` is valid.
        const LOCKOWNER = 1 << 1;
        /// Clear set-id bits.
        const KILL_SUIDGID = 1 << 2;
    }
}

bitflags! {
    /// `flags` of `fuse_attr` (`FUSE_ATTR_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AttrFlags: u32 {
        /// Root of a mount within the share.
        const SUBMOUNT = 1 << 0;
        /// Use DAX for this file.
        const DAX = 1 << 1;
    }
}

bitflags! {
    /// `getattr_flags` of GETATTR and STATX (`FUSE_GETATTR_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct GetattrFlags: u32 {
        /// `fh` is valid.
        const FH = 1 << 0;
    }
}

bitflags! {
    /// `open_flags` of OPEN, CREATE and TMPFILE (`FUSE_OPEN_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct OpenRequestFlags: u32 {
        /// Clear set-id bits, with `O_TRUNC`.
        const KILL_SUIDGID = 1 << 0;
    }
}

bitflags! {
    /// `read_flags` of READ (`FUSE_READ_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ReadFlags: u32 {
        /// `lock_owner` is valid.
        const LOCKOWNER = 1 << 1;
    }
}

bitflags! {
    /// `release_flags` of RELEASE (`FUSE_RELEASE_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ReleaseFlags: u32 {
        /// Flush as FLUSH does.
        const FLUSH = 1 << 0;
        /// Give up the flock(2) lock of the owner.
        const FLOCK_UNLOCK = 1 << 1;
    }
}

bitflags! {
    /// `fsync_flags` of FSYNC and FSYNCDIR (`FUSE_FSYNC_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FsyncFlags: u32 {
        /// Only what is needed to read the contents back.
        const FDATASYNC = 1 << 0;
    }
}

bitflags! {
    /// `setxattr_flags` of SETXATTR (`FUSE_SETXATTR_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct SetxattrFlags: u32 {
        /// Clear set-group-id along with an access ACL.
        const ACL_KILL_SGID = 1 << 0;
    }
}

bitflags! {
    /// `mask` of ACCESS, as access(2) has it; no bit asks for existence (`F_OK`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct AccessMask: u32 {
        /// Execute or search (`X_OK`).
        const EXECUTE = 1 << 0;
        /// Write (`W_OK`).
        const WRITE = 1 << 1;
        /// Read (`R_OK`).
        const READ = 1 << 2;
    }
}

bitflags! {
    /// How a lock is asked for (`FUSE_LK_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct LockFlags: u32 {
        /// A lock of flock(2), not of fcntl(2).
        const FLOCK = 1 << 0;
    }
}

bitflags! {
    /// How an ioctl is asked for (`FUSE_IOCTL_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct IoctlFlags: u32 {
        /// The task is of another width than its kernel.
        const COMPAT = 1 << 0;
        /// The argument is an address; only character devices may do that.
        const UNRESTRICTED = 1 << 1;
        /// A 32-bit ioctl.
        const IOCTL_32BIT = 1 << 3;
        /// The file is a directory.
        const DIR = 1 << 4;
    }
}

/// `whence` of LSEEK: the next data at or after the offset (`SEEK_DATA`).
pub const SEEK_DATA: u32 = 3;

/// `whence` of LSEEK: the next hole at or after the offset (`SEEK_HOLE`).
pub const SEEK_HOLE: u32 = 4;

impl SessionFlags {
    /// The known flags among `flags` and `flags2` of INIT.
    pub const fn from_halves(low: u32, high: u32) -> Self {
        // Widening: no bit is lost.
        Self::from_bits_truncate(low as u64 | (high as u64) << 32)
    }

    /// `flags` and `flags2` of INIT.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves together hold every bit"
    )]
    pub const fn halves(self) -> (u32, u32) {
        (self.bits() as u32, (self.bits() >> 32) as u32)
    }
}
