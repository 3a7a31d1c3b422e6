//! What: FUSE messages as bytes, laid out by hand from include/uapi/linux/fuse.h.
//!
//! In: fields in the order of the header. Out: request bytes; decoded replies. The program under
//! test has its own definitions; two independent ones that agree are the point of this file.

use super::{u32_of, usize_of, usize_of64};

/// Operation codes (`enum fuse_opcode`).
pub(crate) mod op {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const GETLK: u32 = 31;
    pub(crate) const SETLK: u32 = 32;
    pub(crate) const SETLKW: u32 = 33;
    pub(crate) const ACCESS: u32 = 34;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const BMAP: u32 = 37;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const POLL: u32 = 40;
    pub(crate) const NOTIFY_REPLY: u32 = 41;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const SETUPMAPPING: u32 = 48;
    pub(crate) const REMOVEMAPPING: u32 = 49;
    pub(crate) const SYNCFS: u32 = 50;
    pub(crate) const TMPFILE: u32 = 51;
    pub(crate) const STATX: u32 = 52;
    pub(crate) const COPY_FILE_RANGE_64: u32 = 53;
    pub(crate) const CUSE_INIT: u32 = 4096;
}

/// Bits of INIT.
pub(crate) mod init {
    pub(crate) const ASYNC_READ: u64 = 1 << 0;
    pub(crate) const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub(crate) const EXPORT_SUPPORT: u64 = 1 << 4;
    pub(crate) const BIG_WRITES: u64 = 1 << 5;
    pub(crate) const DONT_MASK: u64 = 1 << 6;
    pub(crate) const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub(crate) const DO_READDIRPLUS: u64 = 1 << 13;
    pub(crate) const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub(crate) const WRITEBACK_CACHE: u64 = 1 << 16;
    pub(crate) const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(crate) const POSIX_ACL: u64 = 1 << 20;
    pub(crate) const MAX_PAGES: u64 = 1 << 22;
    pub(crate) const CACHE_SYMLINKS: u64 = 1 << 23;
    pub(crate) const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub(crate) const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub(crate) const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub(crate) const SETXATTR_EXT: u64 = 1 << 29;
    pub(crate) const INIT_EXT: u64 = 1 << 30;
    pub(crate) const SECURITY_CTX: u64 = 1 << 32;
    pub(crate) const CREATE_SUPP_GROUP: u64 = 1 << 34;
    pub(crate) const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    pub(crate) const PASSTHROUGH: u64 = 1 << 37;
    pub(crate) const OVER_IO_URING: u64 = 1 << 41;
    pub(crate) const REQUEST_TIMEOUT: u64 = 1 << 42;
}

/// Bytes of `fuse_in_header`.
pub(crate) const IN_HEADER: usize = 40;
/// Bytes of `fuse_out_header`.
pub(crate) const OUT_HEADER: usize = 16;
/// Bytes of `fuse_entry_out`.
pub(crate) const ENTRY_OUT: usize = 128;
/// The root of the mount.
pub(crate) const ROOT: u64 = 1;

/// `fuse_in_header`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) opcode: u32,
    pub(crate) unique: u64,
    pub(crate) node: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Extension bytes at the end of the message, in units of 8.
    pub(crate) extension_words: u16,
}

impl Header {
    /// The whole message.
    pub(crate) fn message(&self, body: &[u8]) -> Vec<u8> {
        let mut bytes = Bytes::new()
            .u32(u32_of(IN_HEADER + body.len()))
            .u32(self.opcode)
            .u64(self.unique)
            .u64(self.node)
            .u32(self.uid)
            .u32(self.gid)
            .u32(4321)
            .u16(self.extension_words)
            .u16(0)
            .done();
        bytes.extend_from_slice(body);
        bytes
    }
}

/// Builds a message body field by field.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes(Vec<u8>);

impl Bytes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Open flags and modes, which libc has as signed numbers.
    pub(crate) fn i32(mut self, value: i32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A name with its NUL.
    pub(crate) fn name(self, name: &[u8]) -> Self {
        self.raw(name).raw(&[0])
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Zeros up to a multiple of 8.
    pub(crate) fn pad8(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a reply field by field; panics when it is too short.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Fields(bytes)
    }

    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        assert!(
            self.0.len() >= len,
            "the reply ends {} bytes before {len} more were due",
            len - self.0.len()
        );
        let (head, tail) = self.0.split_at(len);
        self.0 = tail;
        head
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take(2).try_into().expect("2 bytes were taken"))
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("4 bytes were taken"))
    }

    pub(crate) fn i32(&mut self) -> i32 {
        i32::from_le_bytes(self.take(4).try_into().expect("4 bytes were taken"))
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("8 bytes were taken"))
    }

    pub(crate) fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.take(8).try_into().expect("8 bytes were taken"))
    }

    /// Padding and reserved fields: a daemon must not leak what lay there.
    pub(crate) fn zeros(&mut self, len: usize) {
        let bytes = self.take(len);
        assert!(
            bytes.iter().all(|byte| *byte == 0),
            "padding is not zero: {bytes:02x?}"
        );
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn end(&self) {
        assert!(
            self.0.is_empty(),
            "{} bytes too many in the reply",
            self.0.len()
        );
    }
}

/// `fuse_attr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attr {
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) atime: (u64, u32),
    pub(crate) mtime: (u64, u32),
    pub(crate) ctime: (u64, u32),
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) blksize: u32,
    pub(crate) flags: u32,
}

impl Attr {
    pub(crate) fn parse(fields: &mut Fields<'_>) -> Self {
        let (ino, size, blocks) = (fields.u64(), fields.u64(), fields.u64());
        let (atime, mtime, ctime) = (fields.u64(), fields.u64(), fields.u64());
        let nanos = (fields.u32(), fields.u32(), fields.u32());
        let attr = Attr {
            ino,
            size,
            blocks,
            atime: (atime, nanos.0),
            mtime: (mtime, nanos.1),
            ctime: (ctime, nanos.2),
            mode: fields.u32(),
            nlink: fields.u32(),
            uid: fields.u32(),
            gid: fields.u32(),
            rdev: fields.u32(),
            blksize: fields.u32(),
            flags: fields.u32(),
        };
        assert!(
            nanos.0.max(nanos.1).max(nanos.2) < 1_000_000_000,
            "{attr:?}"
        );
        attr
    }
}

/// `fuse_attr_out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttrOut {
    /// Seconds and nanoseconds.
    pub(crate) valid: (u64, u32),
    pub(crate) attr: Attr,
}

/// `fuse_entry_out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) node: u64,
    pub(crate) generation: u64,
    pub(crate) entry_valid: (u64, u32),
    pub(crate) attr_valid: (u64, u32),
    pub(crate) attr: Attr,
}

impl Entry {
    pub(crate) fn parse(fields: &mut Fields<'_>) -> Self {
        let (node, generation) = (fields.u64(), fields.u64());
        let (entry_valid, attr_valid) = (fields.u64(), fields.u64());
        let nanos = (fields.u32(), fields.u32());
        Entry {
            node,
            generation,
            entry_valid: (entry_valid, nanos.0),
            attr_valid: (attr_valid, nanos.1),
            attr: Attr::parse(fields),
        }
    }
}

/// `fuse_open_out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) fh: u64,
    pub(crate) flags: u32,
}

impl Opened {
    pub(crate) fn parse(fields: &mut Fields<'_>) -> Self {
        let opened = Opened {
            fh: fields.u64(),
            flags: fields.u32(),
        };
        fields.zeros(4);
        opened
    }
}

/// `fuse_init_out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InitOut {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) max_readahead: u32,
    pub(crate) flags: u64,
    pub(crate) max_background: u16,
    pub(crate) congestion_threshold: u16,
    pub(crate) max_write: u32,
    pub(crate) time_gran: u32,
    pub(crate) max_pages: u16,
    pub(crate) map_alignment: u16,
}

impl InitOut {
    pub(crate) fn parse(reply: &[u8]) -> Self {
        let mut fields = Fields::new(reply);
        let (major, minor, max_readahead, low) =
            (fields.u32(), fields.u32(), fields.u32(), fields.u32());
        let (max_background, congestion_threshold) = (fields.u16(), fields.u16());
        let (max_write, time_gran) = (fields.u32(), fields.u32());
        let (max_pages, map_alignment, high) = (fields.u16(), fields.u16(), fields.u32());
        fields.zeros(28);
        fields.end();
        InitOut {
            major,
            minor,
            max_readahead,
            flags: u64::from(low) | u64::from(high) << 32,
            max_background,
            congestion_threshold,
            max_write,
            time_gran,
            max_pages,
            map_alignment,
        }
    }
}

/// `fuse_kstatfs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statfs {
    pub(crate) blocks: u64,
    pub(crate) blocks_free: u64,
    pub(crate) blocks_available: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
    pub(crate) block_size: u32,
    pub(crate) name_len_max: u32,
    pub(crate) fragment_size: u32,
}

impl Statfs {
    pub(crate) fn parse(reply: &[u8]) -> Self {
        let mut fields = Fields::new(reply);
        let statfs = Statfs {
            blocks: fields.u64(),
            blocks_free: fields.u64(),
            blocks_available: fields.u64(),
            files: fields.u64(),
            files_free: fields.u64(),
            block_size: fields.u32(),
            name_len_max: fields.u32(),
            fragment_size: fields.u32(),
        };
        fields.zeros(28);
        fields.end();
        statfs
    }
}

/// The parts of `fuse_statx_out` that tests look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statx {
    pub(crate) valid: (u64, u32),
    pub(crate) mask: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u16,
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) btime: (i64, u32),
    pub(crate) mtime: (i64, u32),
}

impl Statx {
    pub(crate) fn parse(reply: &[u8]) -> Self {
        let mut fields = Fields::new(reply);
        let valid = (fields.u64(), fields.u32());
        fields.zeros(4 + 16);
        let (mask, _blksize, _attributes) = (fields.u32(), fields.u32(), fields.u64());
        let (nlink, uid, gid, mode) = (fields.u32(), fields.u32(), fields.u32(), fields.u16());
        fields.zeros(2);
        let (ino, size, blocks, _) = (fields.u64(), fields.u64(), fields.u64(), fields.u64());
        let mut time = || {
            let time = (fields.i64(), fields.u32());
            fields.zeros(4);
            time
        };
        let (_atime, btime, _ctime, mtime) = (time(), time(), time(), time());
        fields.take(16);
        fields.zeros(14 * 8);
        fields.end();
        Statx {
            valid,
            mask,
            nlink,
            uid,
            gid,
            mode,
            ino,
            size,
            blocks,
            btime,
            mtime,
        }
    }
}

/// `fuse_dirent`, and the entry before it in READDIRPLUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dirent {
    pub(crate) ino: u64,
    pub(crate) offset: u64,
    pub(crate) kind: u32,
    pub(crate) name: Vec<u8>,
    pub(crate) entry: Option<Entry>,
}

/// Decodes a READDIR or READDIRPLUS reply; checks lengths and padding.
pub(crate) fn parse_dirents(reply: &[u8], plus: bool) -> Vec<Dirent> {
    let mut fields = Fields::new(reply);
    let mut dirents = Vec::new();
    while !fields.is_empty() {
        let entry = plus.then(|| Entry::parse(&mut fields));
        let (ino, offset) = (fields.u64(), fields.u64());
        let (name_len, kind) = (fields.u32(), fields.u32());
        let len = usize_of(name_len);
        assert!(
            (1..=255).contains(&len),
            "a name of {len} bytes in a directory"
        );
        let name = fields.take(len).to_vec();
        assert!(!name.contains(&b'/') && !name.contains(&0), "name {name:?}");
        fields.zeros(len.next_multiple_of(8) - len);
        dirents.push(Dirent {
            ino,
            offset,
            kind,
            name,
            entry,
        });
    }
    dirents
}

/// `fuse_setattr_in` from what a test wants to change.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SetAttr {
    pub(crate) valid: u32,
    pub(crate) fh: u64,
    pub(crate) size: u64,
    pub(crate) atime: (u64, u32),
    pub(crate) mtime: (u64, u32),
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl SetAttr {
    pub(crate) fn body(&self) -> Vec<u8> {
        Bytes::new()
            .u32(self.valid)
            .u32(0)
            .u64(self.fh)
            .u64(self.size)
            .u64(0)
            .u64(self.atime.0)
            .u64(self.mtime.0)
            .u64(0)
            .u32(self.atime.1)
            .u32(self.mtime.1)
            .u32(0)
            .u32(self.mode)
            .u32(0)
            .u32(self.uid)
            .u32(self.gid)
            .u32(0)
            .done()
    }
}

/// The supplementary groups extension (`FUSE_EXT_GROUPS`).
pub(crate) fn group_extension(groups: &[u32]) -> Vec<u8> {
    let len = u32_of(12 + 4 * groups.len()).next_multiple_of(8);
    let mut bytes = Bytes::new().u32(len).u32(32).u32(u32_of(groups.len()));
    for group in groups {
        bytes = bytes.u32(*group);
    }
    bytes.pad8().done()
}

/// The record of security contexts (`fuse_secctx_header` and what follows), as Linux lays it out.
pub(crate) fn label_extension(labels: &[(&str, &[u8])]) -> Vec<u8> {
    let mut contexts = Vec::new();
    for (name, value) in labels {
        let context = Bytes::new().u32(u32_of(value.len())).u32(0);
        let context = context.name(name.as_bytes()).raw(value).pad8();
        contexts.extend(context.done());
    }
    let header = Bytes::new().u32(u32_of(8 + contexts.len()));
    header.u32(u32_of(labels.len())).raw(&contexts).done()
}

/// Length of the reply as its header says, and its error.
pub(crate) fn out_header(reply: &[u8]) -> (usize, i32, u64) {
    let mut fields = Fields::new(reply);
    (usize_of(fields.u32()), fields.i32(), fields.u64())
}

/// A 64-bit length of the wire, for use in memory.
pub(crate) fn len_of(number: u64) -> usize {
    usize_of64(number)
}
