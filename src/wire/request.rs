//! What: the arguments of requests, as they follow the header.
//!
//! In: bytes of the guest, by `Plain::split_from`. Out: numbers that nobody has checked yet.
//! Fields that fuse.h has unsigned but the kernel fills with signed times are signed here.
//! Does not: hold names or payloads, which follow the fixed part.

use crate::wire::pod::wire_struct;

wire_struct! {
    "fuse_forget_in", 8;
    /// FORGET.
    pub struct ForgetIn { pub nlookup: u64, }
}

wire_struct! {
    "fuse_forget_one", 16;
    /// One of the entries that follow [`BatchForgetIn`].
    pub struct ForgetOne { pub nodeid: u64, pub nlookup: u64, }
}

wire_struct! {
    "fuse_batch_forget_in", 8;
    /// BATCH_FORGET.
    pub struct BatchForgetIn { pub count: u32, pub dummy: u32, }
}

wire_struct! {
    "fuse_getattr_in", 16;
    /// GETATTR.
    pub struct GetattrIn { pub getattr_flags: u32, pub dummy: u32, pub fh: u64, }
}

wire_struct! {
    "fuse_statx_in", 24;
    /// STATX.
    pub struct StatxIn {
        pub getattr_flags: u32,
        pub reserved: u32,
        pub fh: u64,
        pub sx_flags: u32,
        pub sx_mask: u32,
    }
}

wire_struct! {
    "fuse_setattr_in", 88;
    /// SETATTR.
    pub struct SetattrIn {
        pub valid: u32,
        pub padding: u32,
        pub fh: u64,
        pub size: u64,
        pub lock_owner: u64,
        pub atime: i64,
        pub mtime: i64,
        pub ctime: i64,
        pub atimensec: u32,
        pub mtimensec: u32,
        pub ctimensec: u32,
        pub mode: u32,
        pub unused4: u32,
        pub uid: u32,
        pub gid: u32,
        pub unused5: u32,
    }
}

wire_struct! {
    "fuse_mknod_in", 16;
    /// MKNOD; the name follows.
    pub struct MknodIn { pub mode: u32, pub rdev: u32, pub umask: u32, pub padding: u32, }
}

wire_struct! {
    "fuse_mkdir_in", 8;
    /// MKDIR; the name follows.
    pub struct MkdirIn { pub mode: u32, pub umask: u32, }
}

wire_struct! {
    "fuse_rename_in", 8;
    /// RENAME; the old and the new name follow.
    pub struct RenameIn { pub newdir: u64, }
}

wire_struct! {
    "fuse_rename2_in", 16;
    /// RENAME2; the old and the new name follow.
    pub struct Rename2In { pub newdir: u64, pub flags: u32, pub padding: u32, }
}

wire_struct! {
    "fuse_link_in", 8;
    /// LINK; the new name follows.
    pub struct LinkIn { pub oldnodeid: u64, }
}

wire_struct! {
    "fuse_open_in", 8;
    /// OPEN and OPENDIR.
    pub struct OpenIn { pub flags: u32, pub open_flags: u32, }
}

wire_struct! {
    "fuse_create_in", 16;
    /// CREATE and TMPFILE; a name follows.
    pub struct CreateIn { pub flags: u32, pub mode: u32, pub umask: u32, pub open_flags: u32, }
}

wire_struct! {
    "fuse_read_in", 40;
    /// READ, READDIR and READDIRPLUS.
    pub struct ReadIn {
        pub fh: u64,
        pub offset: u64,
        pub size: u32,
        pub read_flags: u32,
        pub lock_owner: u64,
        pub flags: u32,
        pub padding: u32,
    }
}

wire_struct! {
    "fuse_write_in", 40;
    /// WRITE; the contents follow.
    pub struct WriteIn {
        pub fh: u64,
        pub offset: u64,
        pub size: u32,
        pub write_flags: u32,
        pub lock_owner: u64,
        pub flags: u32,
        pub padding: u32,
    }
}

wire_struct! {
    "fuse_release_in", 24;
    /// RELEASE and RELEASEDIR.
    pub struct ReleaseIn {
        pub fh: u64,
        pub flags: u32,
        pub release_flags: u32,
        pub lock_owner: u64,
    }
}

wire_struct! {
    "fuse_flush_in", 24;
    /// FLUSH.
    pub struct FlushIn { pub fh: u64, pub unused: u32, pub padding: u32, pub lock_owner: u64, }
}

wire_struct! {
    "fuse_fsync_in", 16;
    /// FSYNC and FSYNCDIR.
    pub struct FsyncIn { pub fh: u64, pub fsync_flags: u32, pub padding: u32, }
}

wire_struct! {
    "fuse_setxattr_in", 16;
    /// SETXATTR when SETXATTR_EXT is negotiated; the name and the value follow.
    pub struct SetxattrIn {
        pub size: u32,
        pub flags: u32,
        pub setxattr_flags: u32,
        pub padding: u32,
    }
}

wire_struct! {
    "fuse_setxattr_in (compatible)", 8;
    /// SETXATTR without SETXATTR_EXT: the first half of [`SetxattrIn`].
    pub struct SetxattrInCompat { pub size: u32, pub flags: u32, }
}

wire_struct! {
    "fuse_getxattr_in", 8;
    /// GETXATTR, where the name follows, and LISTXATTR.
    pub struct GetxattrIn { pub size: u32, pub padding: u32, }
}

wire_struct! {
    "fuse_access_in", 8;
    /// ACCESS.
    pub struct AccessIn { pub mask: u32, pub padding: u32, }
}

wire_struct! {
    "fuse_init_in", 64;
    /// INIT. Before 7.36 only the first [`INIT_IN_LEN_MIN`] bytes are sent.
    pub struct InitIn {
        pub major: u32,
        pub minor: u32,
        pub max_readahead: u32,
        pub flags: u32,
        pub flags2: u32,
        pub unused: [u32; 11],
    }
}

/// Shortest form of [`InitIn`] in bytes, used before 7.36.
pub const INIT_IN_LEN_MIN: usize = 16;

wire_struct! {
    "fuse_interrupt_in", 8;
    /// INTERRUPT.
    pub struct InterruptIn { pub unique: u64, }
}

wire_struct! {
    "fuse_fallocate_in", 32;
    /// FALLOCATE.
    pub struct FallocateIn {
        pub fh: u64,
        pub offset: u64,
        pub length: u64,
        pub mode: u32,
        pub padding: u32,
    }
}

wire_struct! {
    "fuse_lseek_in", 24;
    /// LSEEK.
    pub struct LseekIn { pub fh: u64, pub offset: u64, pub whence: u32, pub padding: u32, }
}

wire_struct! {
    "fuse_copy_file_range_in", 56;
    /// COPY_FILE_RANGE and COPY_FILE_RANGE_64.
    pub struct CopyFileRangeIn {
        pub fh_in: u64,
        pub off_in: u64,
        pub nodeid_out: u64,
        pub fh_out: u64,
        pub off_out: u64,
        pub len: u64,
        pub flags: u64,
    }
}

wire_struct! {
    "fuse_syncfs_in", 8;
    /// SYNCFS.
    pub struct SyncfsIn { pub padding: u64, }
}

wire_struct! {
    "fuse_file_lock", 24;
    /// A lock: first and last byte, `F_RDLCK`, `F_WRLCK` or `F_UNLCK`, and a process.
    pub struct FileLock { pub start: u64, pub end: u64, pub type_: u32, pub pid: u32, }
}

/// `F_RDLCK` of fcntl(2) on Linux.
pub const F_RDLCK: u32 = 0;
/// `F_WRLCK` of fcntl(2) on Linux.
pub const F_WRLCK: u32 = 1;
/// `F_UNLCK` of fcntl(2) on Linux.
pub const F_UNLCK: u32 = 2;

wire_struct! {
    "fuse_lk_in", 48;
    /// GETLK, SETLK and SETLKW.
    pub struct LkIn {
        pub fh: u64,
        pub owner: u64,
        pub lk: FileLock,
        pub lk_flags: u32,
        pub padding: u32,
    }
}

wire_struct! {
    "fuse_ioctl_in", 32;
    /// IOCTL, followed by `in_size` bytes of data.
    pub struct IoctlIn {
        pub fh: u64,
        pub flags: u32,
        pub cmd: u32,
        pub arg: u64,
        pub in_size: u32,
        pub out_size: u32,
    }
}
