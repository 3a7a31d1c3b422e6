//! What: the words in which the FUSE server and a file system speak.
//!
//! In: values that the server has checked. Out: the same, as types that prove the check.
//! Invariants: a [`FileName`] is one path component; a [`LookupRef`] or [`HandleRef`] that is
//! dropped without `commit` takes back what it granted. Does not: know wire layouts.

use std::ffi::CStr;
use std::fmt;
use std::time::Duration;

use crate::ids::types::{GuestGid, GuestUid};
use crate::sys::errno::{Errno, Result};
use crate::wire::flags::{OpenReplyFlags, SessionFlags};

/// Longest name of one path component in bytes, without its NUL (`NAME_MAX`).
pub const NAME_LEN_MAX: usize = 255;

/// A node as the guest knows it (`nodeid`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// The root of the mount (`FUSE_ROOT_ID`).
    pub const ROOT: NodeId = NodeId(1);

    /// The node with this number; whether it exists is for the file system to say.
    pub const fn new(raw: u64) -> Self {
        NodeId(raw)
    }

    /// The number on the wire.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// An open file or directory as the guest knows it (`fh`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(u64);

impl HandleId {
    /// The handle with this number; whether it exists is for the file system to say.
    pub const fn new(raw: u64) -> Self {
        HandleId(raw)
    }

    /// The number on the wire.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// The name of one path component: not empty, no `/`, no NUL inside, not `.` or `..`, at most
/// [`NAME_LEN_MAX`] bytes. The calls that change a directory have no flags that would confine
/// them, so this type is the wall that keeps a guest inside the share.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileName<'a>(&'a CStr);

impl<'a> FileName<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// `EINVAL` for an empty name, one with `/`, `.` and `..`; `ENAMETOOLONG` beyond
    /// [`NAME_LEN_MAX`].
    pub fn new(name: &'a CStr) -> Result<Self> {
        let bytes = name.to_bytes();
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
            return Err(Errno::EINVAL);
        }
        if bytes.len() > NAME_LEN_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(FileName(name))
    }

    /// The name for a system call.
    pub const fn as_c_str(self) -> &'a CStr {
        self.0
    }

    /// The name without its NUL.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0.to_bytes()
    }
}

impl fmt::Debug for FileName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

/// Who asks. Ids are absent when the guest sent 0xffffffff (an idmapped mount may do so for
/// operations that create nothing): such a caller can never create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User id of the calling task in the guest.
    pub uid: Option<GuestUid>,
    /// Group id of the calling task in the guest.
    pub gid: Option<GuestGid>,
    /// Process id in the guest; for logs only.
    pub pid: u32,
    /// The parent directory's group when the caller is a member of it by a supplementary group
    /// (CREATE_SUPP_GROUP).
    pub supplementary_gid: Option<GuestGid>,
}

/// Most security contexts of one new object: one for each security module that a guest may stack.
pub const SECURITY_CONTEXTS_MAX: usize = 4;

/// A label for an object that is being made: an extended attribute that a security module of the
/// guest wants to be there from the beginning (SECURITY_CTX).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecurityContext<'a> {
    /// Name of the attribute, never empty.
    pub name: &'a CStr,
    /// Its value, never empty.
    pub value: &'a [u8],
}

/// The labels of one new object, at most [`SECURITY_CONTEXTS_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecurityContexts<'a> {
    contexts: [Option<SecurityContext<'a>>; SECURITY_CONTEXTS_MAX],
}

impl<'a> SecurityContexts<'a> {
    /// Adds one.
    ///
    /// # Errors
    /// `EINVAL` when there are [`SECURITY_CONTEXTS_MAX`] already, or one of that name.
    pub fn add(&mut self, context: SecurityContext<'a>) -> Result<()> {
        if self.iter().any(|present| present.name == context.name) {
            return Err(Errno::EINVAL);
        }
        let free = self.contexts.iter_mut().find(|place| place.is_none());
        *free.ok_or(Errno::EINVAL)? = Some(context);
        Ok(())
    }

    /// All of them, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = SecurityContext<'a>> {
        self.contexts.into_iter().flatten()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// Who holds or wants a lock: an opaque number that the guest gives to each owner (for POSIX
/// locks a table of open files, for BSD locks one open file).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockOwner(u64);

impl LockOwner {
    /// The owner with this number.
    pub const fn new(raw: u64) -> Self {
        LockOwner(raw)
    }

    /// The number on the wire.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// The two families of advisory locks, which do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// Byte ranges: fcntl(2), `F_SETLK`.
    Posix,
    /// Whole files: flock(2).
    Flock,
}

/// What an owner wants with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockType {
    /// Shared (`F_RDLCK`).
    Read,
    /// Exclusive (`F_WRLCK`).
    Write,
    /// Nothing any more (`F_UNLCK`).
    Unlock,
}

/// A range of a file in bytes, both ends included; `end` is `i64::MAX` for "to the end of the
/// file, however far that moves". Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    start: u64,
    end: u64,
}

impl LockRange {
    /// Everything.
    pub const WHOLE_FILE: LockRange = LockRange {
        start: 0,
        end: i64::MAX.unsigned_abs(),
    };

    /// Checks a range.
    ///
    /// # Errors
    /// `EINVAL` when it ends before it starts or lies beyond `i64::MAX`.
    pub fn new(start: u64, end: u64) -> Result<Self> {
        if start > end || end > Self::WHOLE_FILE.end {
            return Err(Errno::EINVAL);
        }
        Ok(LockRange { start, end })
    }

    /// First byte.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// Last byte, at most `i64::MAX`.
    pub const fn end(self) -> u64 {
        self.end
    }
}

/// A lock that stands in somebody's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLock {
    /// Where.
    pub range: LockRange,
    /// [`LockType::Read`] or [`LockType::Write`].
    pub lock_type: LockType,
    /// Process that holds it as far as the host can tell, else 0.
    pub pid: u32,
}

/// Seconds and nanoseconds since the epoch; `nanos` is below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Seconds, negative before 1970.
    pub secs: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

/// Attributes of a node as the guest shall see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Type and permission bits (`st_mode`).
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: GuestUid,
    /// Group.
    pub gid: GuestGid,
    /// Device number of a device node, in the kernel's 32-bit encoding (`new_encode_dev`).
    pub rdev: u32,
    /// Preferred block size in bytes.
    pub blksize: u32,
    /// A directory on another file system than its parent, announced as a mount point.
    pub is_submount: bool,
}

/// [`Attr`] and what only statx(2) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedAttr {
    /// The basic attributes.
    pub attr: Attr,
    /// Creation time, where the host's file system keeps one.
    pub btime: Option<Timestamp>,
    /// `STATX_ATTR_*` bits that are set.
    pub attributes: u64,
    /// `STATX_ATTR_*` bits that are meaningful.
    pub attributes_mask: u64,
    /// `STATX_*` bits that the host filled in.
    pub mask: u32,
    /// Device of the file system, major and minor.
    pub dev: (u32, u32),
}

/// Attributes with the time for which the guest may believe them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttrReply<A = Attr> {
    /// The attributes.
    pub attr: A,
    /// How long the guest may cache them.
    pub valid: Duration,
}

/// Takes back what a reply granted but the guest never received.
pub trait GrantOwner {
    /// Takes back one lookup of `node`.
    fn take_back_lookup(&self, node: NodeId);

    /// Closes `handle` of `node`.
    fn take_back_handle(&self, node: NodeId, handle: HandleId);
}

/// One lookup count granted to the guest; taken back when dropped, unless committed.
pub struct LookupRef<'fs> {
    owner: &'fs dyn GrantOwner,
    node: NodeId,
}

impl<'fs> LookupRef<'fs> {
    /// A guard for a count that `owner` has just added to `node`.
    pub fn new(owner: &'fs dyn GrantOwner, node: NodeId) -> Self {
        LookupRef { owner, node }
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The reply is in guest memory: the count is the guest's now.
    pub fn commit(self) {
        std::mem::forget(self);
    }
}

impl Drop for LookupRef<'_> {
    fn drop(&mut self) {
        self.owner.take_back_lookup(self.node);
    }
}

impl fmt::Debug for LookupRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LookupRef").field(&self.node).finish()
    }
}

/// A handle granted to the guest; closed when dropped, unless committed.
pub struct HandleRef<'fs> {
    owner: &'fs dyn GrantOwner,
    node: NodeId,
    handle: HandleId,
}

impl<'fs> HandleRef<'fs> {
    /// A guard for a handle that `owner` has just opened.
    pub fn new(owner: &'fs dyn GrantOwner, node: NodeId, handle: HandleId) -> Self {
        HandleRef {
            owner,
            node,
            handle,
        }
    }

    /// The handle.
    pub fn handle(&self) -> HandleId {
        self.handle
    }

    /// The reply is in guest memory: the handle is the guest's now.
    pub fn commit(self) {
        std::mem::forget(self);
    }
}

impl Drop for HandleRef<'_> {
    fn drop(&mut self) {
        self.owner.take_back_handle(self.node, self.handle);
    }
}

impl fmt::Debug for HandleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandleRef").field(&self.handle).finish()
    }
}

/// A name that was found or made.
#[derive(Debug)]
pub struct Entry<'fs> {
    /// The node, and the lookup that this entry grants.
    pub lookup: LookupRef<'fs>,
    /// Tells reuses of a node number apart; 0 when numbers are never reused.
    pub generation: u64,
    /// Its attributes.
    pub attr: Attr,
    /// How long the guest may cache the attributes.
    pub attr_valid: Duration,
    /// How long the guest may cache that the name leads to this node.
    pub entry_valid: Duration,
}

/// What looking a name up led to.
#[derive(Debug)]
pub enum Lookup<'fs> {
    /// The name is there.
    Found(Entry<'fs>),
    /// It is not, and the guest may believe so for a while: a negative entry. A name that is
    /// missing and must be asked for again each time is `ENOENT` instead.
    Missing {
        /// How long, never zero.
        valid: Duration,
    },
}

/// A file or directory that was opened.
#[derive(Debug)]
pub struct Opened<'fs> {
    /// The handle.
    pub handle: HandleRef<'fs>,
    /// How the guest shall treat its cache.
    pub flags: OpenReplyFlags,
}

/// What INIT settled. Immutable until the next INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Minor protocol version in use (the smaller of both sides').
    pub minor: u32,
    /// Capabilities offered by the guest and wanted here.
    pub flags: SessionFlags,
    /// Largest WRITE payload in bytes.
    pub max_write_bytes: u32,
}

/// What a file system wants from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionWishes {
    /// Capabilities to enable if the guest offers them.
    pub wanted: SessionFlags,
    /// Capabilities without which a mount is refused (`EPROTO`).
    pub required: SessionFlags,
    /// Capabilities among the wanted that somebody counts on: a mount without them is worth a
    /// warning.
    pub missed: SessionFlags,
    /// What goes only together. They are looked at in this order, once.
    pub dependencies: &'static [Dependency],
}

/// A capability that is not agreed on without others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The capability.
    pub capability: SessionFlags,
    /// All that it needs.
    pub needs: SessionFlags,
}

/// How a directory reader took an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Packed {
    /// It is in the reply.
    Yes,
    /// There is no room left: stop, and present this entry again next time.
    Full,
}

/// One name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Opaque cookie: where to go on after this entry.
    pub next_offset: u64,
    /// `DT_*`.
    pub kind: u8,
    /// The name; `.` and `..` occur.
    pub name: &'a [u8],
}

/// Takes the entries of READDIR.
pub trait DirSink {
    /// Adds one entry.
    fn add(&mut self, entry: DirEntry<'_>) -> Packed;
}

/// Takes the entries of READDIRPLUS.
pub trait DirPlusSink<'fs> {
    /// Whether an entry whose name has `name_len` bytes still fits, so that no look-up is spent
    /// on one that does not.
    fn fits(&self, name_len: usize) -> bool;

    /// Adds one entry. Without `found` the guest learns only name, type and inode number
    /// (`nodeid` 0) and looks the name up when it needs more.
    fn add(&mut self, entry: DirEntry<'_>, found: Option<Entry<'fs>>) -> Packed;
}

/// File system totals, as statvfs(3) has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsTotals {
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
    /// Preferred transfer size.
    pub block_size_bytes: u32,
    /// Longest name.
    pub name_len_max: u32,
    /// Unit of the block counts.
    pub fragment_size_bytes: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn file_name_refuses_everything_but_one_component() {
        for bad in [c"", c".", c"..", c"/", c"a/b", c"/a", c"a/", c"../x"] {
            assert_eq!(FileName::new(bad), Err(Errno::EINVAL), "{bad:?}");
        }
        for good in [c"a", c"...", c"..a", c" ", c"a\nb", c"\xff\xfe"] {
            assert_eq!(FileName::new(good).map(FileName::as_c_str), Ok(good));
        }
    }

    #[test]
    fn file_name_length_is_bounded_at_name_max() {
        let name = |len: usize| std::ffi::CString::new(vec![b'n'; len]).unwrap();
        assert!(FileName::new(&name(255)).is_ok());
        assert_eq!(FileName::new(&name(256)), Err(Errno::ENAMETOOLONG));
    }

    #[derive(Default)]
    struct Counter {
        lookups: Cell<u32>,
        handles: Cell<u32>,
    }

    impl GrantOwner for Counter {
        fn take_back_lookup(&self, _: NodeId) {
            self.lookups.set(self.lookups.get() + 1);
        }
        fn take_back_handle(&self, _: NodeId, _: HandleId) {
            self.handles.set(self.handles.get() + 1);
        }
    }

    #[test]
    fn grants_are_taken_back_unless_committed() {
        let owner = Counter::default();
        drop(LookupRef::new(&owner, NodeId::ROOT));
        LookupRef::new(&owner, NodeId::ROOT).commit();
        drop(HandleRef::new(&owner, NodeId::ROOT, HandleId::new(3)));
        HandleRef::new(&owner, NodeId::ROOT, HandleId::new(3)).commit();
        assert_eq!((owner.lookups.get(), owner.handles.get()), (1, 1));
    }
}
