//! Sizes, offsets and numbers of the wire against tables taken from include/uapi/linux/fuse.h.

use std::mem::offset_of;

use virtiofsd::wire::dirent::{Dirent, Direntplus};
use virtiofsd::wire::extension::{
    ExtHeader, LEN_UNIT_BYTES, SECCTX_TYPE_MAX, Secctx, SuppGroups, TYPE_GROUPS,
};
use virtiofsd::wire::flags::{
    AccessMask, AttrFlags, FsyncFlags, GetattrFlags, IoctlFlags, LockFlags, OpenReplyFlags,
    OpenRequestFlags, ReadFlags, ReleaseFlags, SEEK_DATA, SEEK_HOLE, SessionFlags, SetAttrValid,
    SetxattrFlags, WriteFlags,
};
use virtiofsd::wire::header::{InHeader, OutHeader};
use virtiofsd::wire::opcode::Opcode;
use virtiofsd::wire::request::{
    AccessIn, BatchForgetIn, CopyFileRangeIn, CreateIn, FallocateIn, FileLock, FlushIn, ForgetIn,
    ForgetOne, FsyncIn, GetattrIn, GetxattrIn, INIT_IN_LEN_MIN, InitIn, InterruptIn, IoctlIn,
    LinkIn, LkIn, LseekIn, MkdirIn, MknodIn, OpenIn, ReadIn, ReleaseIn, Rename2In, RenameIn,
    SetattrIn, SetxattrIn, SetxattrInCompat, StatxIn, SyncfsIn, WriteIn,
};
use virtiofsd::wire::response::{
    Attr, AttrOut, CopyFileRangeOut, CreateOut, EntryOut, GetxattrOut, InitOut, IoctlOut, LkOut,
    LseekOut, OpenOut, STATX_BTIME, StatfsOut, Statx, StatxOut, SxTime, WriteOut,
};
use virtiofsd::wire::{MAJOR_VERSION, MINOR_VERSION, MINOR_VERSION_MIN};

macro_rules! assert_sizes {
    ($($name:ident = $size:literal,)*) => {
        $(assert_eq!(size_of::<$name>(), $size, stringify!($name));)*
    };
}

macro_rules! assert_offsets {
    ($name:ident: $($field:ident = $offset:literal,)*) => {
        $(assert_eq!(offset_of!($name, $field), $offset,
            concat!(stringify!($name), ".", stringify!($field)));)*
    };
}

#[test]
fn sizes_equal_those_of_the_kernel_header() {
    assert_sizes! {
        InHeader = 40, OutHeader = 16,
        ForgetIn = 8, ForgetOne = 16, BatchForgetIn = 8, GetattrIn = 16, StatxIn = 24,
        SetattrIn = 88, MknodIn = 16, MkdirIn = 8, RenameIn = 8, Rename2In = 16, LinkIn = 8,
        OpenIn = 8, CreateIn = 16, ReadIn = 40, WriteIn = 40, ReleaseIn = 24, FlushIn = 24,
        FsyncIn = 16, SetxattrIn = 16, SetxattrInCompat = 8, GetxattrIn = 8, AccessIn = 8,
        InitIn = 64, InterruptIn = 8, FallocateIn = 32, LseekIn = 24, CopyFileRangeIn = 56,
        SyncfsIn = 8, FileLock = 24, LkIn = 48, IoctlIn = 32, LkOut = 24, IoctlOut = 16,
        Attr = 88, EntryOut = 128, AttrOut = 104, SxTime = 16, Statx = 256, StatxOut = 288,
        OpenOut = 16, CreateOut = 144, WriteOut = 8, StatfsOut = 80, GetxattrOut = 8,
        InitOut = 64, LseekOut = 8, CopyFileRangeOut = 8,
        Dirent = 24, Direntplus = 152, ExtHeader = 8, Secctx = 8, SuppGroups = 4,
    }
    assert_eq!(INIT_IN_LEN_MIN, 16);
}

#[test]
fn offsets_of_headers_and_replies_equal_those_of_the_kernel_header() {
    assert_offsets!(InHeader: len = 0, opcode = 4, unique = 8, nodeid = 16, uid = 24, gid = 28,
        pid = 32, total_extlen = 36, padding = 38,);
    assert_offsets!(OutHeader: len = 0, error = 4, unique = 8,);
    assert_offsets!(Attr: ino = 0, size = 8, blocks = 16, atime = 24, mtime = 32, ctime = 40,
        atimensec = 48, mtimensec = 52, ctimensec = 56, mode = 60, nlink = 64, uid = 68, gid = 72,
        rdev = 76, blksize = 80, flags = 84,);
    assert_offsets!(EntryOut: nodeid = 0, generation = 8, entry_valid = 16, attr_valid = 24,
        entry_valid_nsec = 32, attr_valid_nsec = 36, attr = 40,);
    assert_offsets!(AttrOut: attr_valid = 0, attr_valid_nsec = 8, dummy = 12, attr = 16,);
    assert_offsets!(OpenOut: fh = 0, open_flags = 8, padding = 12,);
    assert_offsets!(CreateOut: entry = 0, open = 128,);
    assert_offsets!(StatfsOut: blocks = 0, bfree = 8, bavail = 16, files = 24, ffree = 32,
        bsize = 40, namelen = 44, frsize = 48, padding = 52, spare = 56,);
    assert_offsets!(InitOut: major = 0, minor = 4, max_readahead = 8, flags = 12,
        max_background = 16, congestion_threshold = 18, max_write = 20, time_gran = 24,
        max_pages = 28, map_alignment = 30, flags2 = 32, max_stack_depth = 36,
        request_timeout = 40, unused = 42,);
    assert_offsets!(StatxOut: attr_valid = 0, attr_valid_nsec = 8, flags = 12, spare = 16,
        stat = 32,);
    assert_offsets!(Statx: mask = 0, blksize = 4, attributes = 8, nlink = 16, uid = 20, gid = 24,
        mode = 28, ino = 32, size = 40, blocks = 48, attributes_mask = 56, atime = 64, btime = 80,
        ctime = 96, mtime = 112, rdev_major = 128, rdev_minor = 132, dev_major = 136,
        dev_minor = 140, spare2 = 144,);
    assert_offsets!(SxTime: tv_sec = 0, tv_nsec = 8,);
    assert_offsets!(Dirent: ino = 0, off = 8, namelen = 16, type_ = 20,);
    assert_offsets!(Direntplus: entry_out = 0, dirent = 128,);
}

#[test]
fn offsets_of_arguments_equal_those_of_the_kernel_header() {
    assert_offsets!(SetattrIn: valid = 0, padding = 4, fh = 8, size = 16, lock_owner = 24,
        atime = 32, mtime = 40, ctime = 48, atimensec = 56, mtimensec = 60, ctimensec = 64,
        mode = 68, unused4 = 72, uid = 76, gid = 80, unused5 = 84,);
    assert_offsets!(GetattrIn: getattr_flags = 0, fh = 8,);
    assert_offsets!(StatxIn: getattr_flags = 0, reserved = 4, fh = 8, sx_flags = 16, sx_mask = 20,);
    assert_offsets!(MknodIn: mode = 0, rdev = 4, umask = 8,);
    assert_offsets!(MkdirIn: mode = 0, umask = 4,);
    assert_offsets!(Rename2In: newdir = 0, flags = 8,);
    assert_offsets!(OpenIn: flags = 0, open_flags = 4,);
    assert_offsets!(CreateIn: flags = 0, mode = 4, umask = 8, open_flags = 12,);
    assert_offsets!(ReadIn: fh = 0, offset = 8, size = 16, read_flags = 20, lock_owner = 24,
        flags = 32,);
    assert_offsets!(WriteIn: fh = 0, offset = 8, size = 16, write_flags = 20, lock_owner = 24,
        flags = 32,);
    assert_offsets!(ReleaseIn: fh = 0, flags = 8, release_flags = 12, lock_owner = 16,);
    assert_offsets!(FlushIn: fh = 0, unused = 8, padding = 12, lock_owner = 16,);
    assert_offsets!(FsyncIn: fh = 0, fsync_flags = 8,);
    assert_offsets!(SetxattrIn: size = 0, flags = 4, setxattr_flags = 8,);
    assert_offsets!(InitIn: major = 0, minor = 4, max_readahead = 8, flags = 12, flags2 = 16,
        unused = 20,);
    assert_offsets!(FallocateIn: fh = 0, offset = 8, length = 16, mode = 24,);
    assert_offsets!(LkIn: fh = 0, owner = 8, lk = 16, lk_flags = 40,);
    assert_offsets!(FileLock: start = 0, end = 8, type_ = 16, pid = 20,);
    assert_offsets!(IoctlIn: fh = 0, flags = 8, cmd = 12, arg = 16, in_size = 24, out_size = 28,);
    assert_offsets!(LseekIn: fh = 0, offset = 8, whence = 16,);
    assert_offsets!(CopyFileRangeIn: fh_in = 0, off_in = 8, nodeid_out = 16, fh_out = 24,
        off_out = 32, len = 40, flags = 48,);
    assert_offsets!(ForgetOne: nodeid = 0, nlookup = 8,);
    assert_offsets!(BatchForgetIn: count = 0,);
    assert_offsets!(ExtHeader: size = 0, type_ = 4,);
    assert_offsets!(Secctx: size = 0, padding = 4,);
}

#[test]
fn opcodes_have_the_numbers_of_the_kernel_header() {
    let numbers: Vec<u32> = Opcode::ALL.iter().map(|opcode| opcode.raw()).collect();
    let expected: Vec<u32> = (1..=53)
        .filter(|number| ![7, 19].contains(number))
        .collect();
    assert_eq!(numbers, expected);
    for (opcode, number) in [
        (Opcode::Lookup, 1),
        (Opcode::Symlink, 6),
        (Opcode::Mknod, 8),
        (Opcode::Write, 16),
        (Opcode::Release, 18),
        (Opcode::Fsync, 20),
        (Opcode::Init, 26),
        (Opcode::Create, 35),
        (Opcode::Destroy, 38),
        (Opcode::BatchForget, 42),
        (Opcode::Readdirplus, 44),
        (Opcode::Rename2, 45),
        (Opcode::Syncfs, 50),
        (Opcode::Tmpfile, 51),
        (Opcode::Statx, 52),
        (Opcode::CopyFileRange64, 53),
    ] {
        assert_eq!(opcode.raw(), number, "{opcode:?}");
    }
    assert_eq!(Opcode::from_raw(4096), Opcode::Unknown(4096));
}

#[test]
#[rustfmt::skip]
fn flags_have_the_bits_of_the_kernel_header() {
    let session: Vec<(&str, u32)> = SessionFlags::all()
        .iter_names()
        .map(|(name, flag)| (name, flag.bits().trailing_zeros()))
        .collect();
    let expected = [
        ("ASYNC_READ", 0), ("POSIX_LOCKS", 1), ("FILE_OPS", 2), ("ATOMIC_O_TRUNC", 3),
        ("EXPORT_SUPPORT", 4), ("BIG_WRITES", 5), ("DONT_MASK", 6), ("SPLICE_WRITE", 7),
        ("SPLICE_MOVE", 8), ("SPLICE_READ", 9), ("FLOCK_LOCKS", 10), ("HAS_IOCTL_DIR", 11),
        ("AUTO_INVAL_DATA", 12), ("DO_READDIRPLUS", 13), ("READDIRPLUS_AUTO", 14),
        ("ASYNC_DIO", 15), ("WRITEBACK_CACHE", 16), ("NO_OPEN_SUPPORT", 17),
        ("PARALLEL_DIROPS", 18), ("HANDLE_KILLPRIV", 19), ("POSIX_ACL", 20), ("ABORT_ERROR", 21),
        ("MAX_PAGES", 22), ("CACHE_SYMLINKS", 23), ("NO_OPENDIR_SUPPORT", 24),
        ("EXPLICIT_INVAL_DATA", 25), ("MAP_ALIGNMENT", 26), ("SUBMOUNTS", 27),
        ("HANDLE_KILLPRIV_V2", 28), ("SETXATTR_EXT", 29), ("INIT_EXT", 30), ("SECURITY_CTX", 32),
        ("HAS_INODE_DAX", 33), ("CREATE_SUPP_GROUP", 34), ("HAS_EXPIRE_ONLY", 35),
        ("DIRECT_IO_ALLOW_MMAP", 36), ("PASSTHROUGH", 37), ("NO_EXPORT_SUPPORT", 38),
        ("HAS_RESEND", 39), ("ALLOW_IDMAP", 40), ("OVER_IO_URING", 41), ("REQUEST_TIMEOUT", 42),
    ];
    assert_eq!(session, expected);
    assert_eq!(GetattrFlags::FH.bits(), 1);
    assert_eq!(OpenRequestFlags::KILL_SUIDGID.bits(), 1);
    assert_eq!(ReadFlags::LOCKOWNER.bits(), 2);
    assert_eq!(LockFlags::FLOCK.bits(), 1);
    let ioctl = IoctlFlags::COMPAT | IoctlFlags::UNRESTRICTED;
    assert_eq!(ioctl.bits(), 3);
    assert_eq!(IoctlFlags::IOCTL_32BIT.bits(), 8);
    assert_eq!(IoctlFlags::DIR.bits(), 16);
    assert_eq!(ReleaseFlags::FLUSH.bits(), 1);
    assert_eq!(ReleaseFlags::FLOCK_UNLOCK.bits(), 2);
    assert_eq!(FsyncFlags::FDATASYNC.bits(), 1);
    assert_eq!(SetxattrFlags::ACL_KILL_SGID.bits(), 1);
    assert_eq!(WriteFlags::CACHE.bits(), 1);
    assert_eq!(WriteFlags::KILL_SUIDGID.bits(), 4);
    assert_eq!(SetAttrValid::KILL_SUIDGID.bits(), 1 << 11);
    assert_eq!(SetAttrValid::ATIME_NOW.bits(), 1 << 7);
    assert_eq!(OpenReplyFlags::PARALLEL_DIRECT_WRITES.bits(), 1 << 6);
    assert_eq!(OpenReplyFlags::PASSTHROUGH.bits(), 1 << 7);
    assert_eq!(AttrFlags::SUBMOUNT.bits(), 1);
    assert_eq!(AccessMask::all().bits(), 7);
}

#[test]
fn other_numbers_equal_those_of_the_kernel_headers() {
    assert_eq!(
        (MAJOR_VERSION, MINOR_VERSION, MINOR_VERSION_MIN),
        (7, 45, 27)
    );
    assert_eq!((SEEK_DATA, SEEK_HOLE), (3, 4));
    assert_eq!(i64::from(STATX_BTIME), i64::from(libc::STATX_BTIME));
    assert_eq!((SECCTX_TYPE_MAX, TYPE_GROUPS, LEN_UNIT_BYTES), (31, 32, 8));
}
