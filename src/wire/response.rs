//! What: the fixed payloads of replies, as they follow the header.
//!
//! In: numbers. Out: their layout. Fields that fuse.h has unsigned but that carry times before
//! 1970 as well are signed here. Whoever fills one writes every field, padding included, so that
//! nothing left over reaches the guest.

use crate::wire::pod::wire_struct;
use crate::wire::request::FileLock;

wire_struct! {
    "fuse_attr", 88;
    /// Attributes of a node.
    pub struct Attr {
        pub ino: u64,
        pub size: u64,
        /// In units of 512 bytes.
        pub blocks: u64,
        pub atime: i64,
        pub mtime: i64,
        pub ctime: i64,
        pub atimensec: u32,
        pub mtimensec: u32,
        pub ctimensec: u32,
        pub mode: u32,
        pub nlink: u32,
        pub uid: u32,
        pub gid: u32,
        pub rdev: u32,
        pub blksize: u32,
        /// `FUSE_ATTR_*`.
        pub flags: u32,
    }
}

wire_struct! {
    "fuse_entry_out", 128;
    /// A name that was found or made.
    pub struct EntryOut {
        pub nodeid: u64,
        pub generation: u64,
        pub entry_valid: u64,
        pub attr_valid: u64,
        pub entry_valid_nsec: u32,
        pub attr_valid_nsec: u32,
        pub attr: Attr,
    }
}

wire_struct! {
    "fuse_attr_out", 104;
    /// GETATTR and SETATTR.
    pub struct AttrOut {
        pub attr_valid: u64,
        pub attr_valid_nsec: u32,
        pub dummy: u32,
        pub attr: Attr,
    }
}

wire_struct! {
    "fuse_sx_time", 16;
    /// A time within [`Statx`].
    pub struct SxTime { pub tv_sec: i64, pub tv_nsec: u32, pub reserved: i32, }
}

wire_struct! {
    "fuse_statx", 256;
    /// Attributes in the layout of statx(2).
    pub struct Statx {
        pub mask: u32,
        pub blksize: u32,
        pub attributes: u64,
        pub nlink: u32,
        pub uid: u32,
        pub gid: u32,
        pub mode: u16,
        pub spare0: u16,
        pub ino: u64,
        pub size: u64,
        pub blocks: u64,
        pub attributes_mask: u64,
        pub atime: SxTime,
        pub btime: SxTime,
        pub ctime: SxTime,
        pub mtime: SxTime,
        pub rdev_major: u32,
        pub rdev_minor: u32,
        pub dev_major: u32,
        pub dev_minor: u32,
        pub spare2: [u64; 14],
    }
}

/// `STATX_BTIME` of statx(2): the birth time is filled in.
pub const STATX_BTIME: u32 = 0x800;

wire_struct! {
    "fuse_statx_out", 288;
    /// STATX.
    pub struct StatxOut {
        pub attr_valid: u64,
        pub attr_valid_nsec: u32,
        pub flags: u32,
        pub spare: [u64; 2],
        pub stat: Statx,
    }
}

wire_struct! {
    "fuse_open_out", 16;
    /// OPEN and OPENDIR, and behind [`EntryOut`] CREATE and TMPFILE.
    pub struct OpenOut { pub fh: u64, pub open_flags: u32, pub padding: u32, }
}

wire_struct! {
    "fuse_entry_out and fuse_open_out", 144;
    /// CREATE and TMPFILE.
    pub struct CreateOut { pub entry: EntryOut, pub open: OpenOut, }
}

wire_struct! {
    "fuse_write_out", 8;
    /// WRITE and COPY_FILE_RANGE.
    pub struct WriteOut { pub size: u32, pub padding: u32, }
}

wire_struct! {
    "fuse_statfs_out", 80;
    /// STATFS (`struct fuse_kstatfs`).
    pub struct StatfsOut {
        pub blocks: u64,
        pub bfree: u64,
        pub bavail: u64,
        pub files: u64,
        pub ffree: u64,
        pub bsize: u32,
        pub namelen: u32,
        pub frsize: u32,
        pub padding: u32,
        pub spare: [u32; 6],
    }
}

wire_struct! {
    "fuse_getxattr_out", 8;
    /// GETXATTR and LISTXATTR when only the length was asked for.
    pub struct GetxattrOut { pub size: u32, pub padding: u32, }
}

wire_struct! {
    "fuse_init_out", 64;
    /// INIT.
    pub struct InitOut {
        pub major: u32,
        pub minor: u32,
        pub max_readahead: u32,
        pub flags: u32,
        pub max_background: u16,
        pub congestion_threshold: u16,
        pub max_write: u32,
        pub time_gran: u32,
        pub max_pages: u16,
        pub map_alignment: u16,
        pub flags2: u32,
        pub max_stack_depth: u32,
        pub request_timeout: u16,
        pub unused: [u16; 11],
    }
}

wire_struct! {
    "fuse_lseek_out", 8;
    /// LSEEK.
    pub struct LseekOut { pub offset: u64, }
}

wire_struct! {
    "fuse_copy_file_range_out", 8;
    /// COPY_FILE_RANGE_64.
    pub struct CopyFileRangeOut { pub bytes_copied: u64, }
}

wire_struct! {
    "fuse_lk_out", 24;
    /// GETLK.
    pub struct LkOut { pub lk: FileLock, }
}

wire_struct! {
    "fuse_ioctl_out", 16;
    /// IOCTL, followed by data.
    pub struct IoctlOut {
        pub result: i32,
        pub flags: u32,
        pub in_iovs: u32,
        pub out_iovs: u32,
    }
}
