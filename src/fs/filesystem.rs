//! What: the operations that the FUSE server asks of a file system.
//!
//! In: checked requests. Out: values, or the errno for the guest. There are no default bodies:
//! an operation that is not supported says `ENOSYS` in writing. Where an operation takes more
//! than four values it takes a request struct. Errors named here are those that an
//! implementation itself decides on; errors of the host pass through unchanged.

use std::ffi::CStr;

use crate::fs::data::{DataSink, DataSource};
use crate::fs::late::{RequestId, Waited, WaitingRoom};
use crate::fs::types::{
    Attr, AttrReply, Caller, DirPlusSink, DirSink, Entry, ExtendedAttr, FileName, FsTotals,
    GrantOwner, HandleId, HeldLock, LockKind, LockOwner, LockRange, LockType, Lookup, Negotiated,
    NodeId, Opened, SecurityContexts, SessionWishes, Timestamp,
};
use crate::ids::types::{GuestGid, GuestUid};
use crate::sys::errno::Result;
use crate::wire::flags::OpenFlags;

/// Where and for whom a new object is made.
#[derive(Clone, Copy, Debug)]
pub struct NewObject<'a> {
    /// Who will own it. Without ids nothing can be made: `EOVERFLOW`.
    pub caller: Caller,
    /// The directory.
    pub parent: NodeId,
    /// Its name there.
    pub name: FileName<'a>,
    /// File mode creation mask of the caller (`umask`), of weight only with DONT_MASK.
    pub umask: u32,
    /// Labels that it must have before anybody can see it.
    pub security_contexts: SecurityContexts<'a>,
}

/// What CREATE may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateIntent {
    /// Make the file unless it is there, and open it.
    CreateOrOpen,
    /// Only open it: nothing may be made here. A name that is missing is `ENOENT`, and with
    /// `O_EXCL` one that is there is `EEXIST`, as ever.
    OpenExisting,
}

/// CREATE: make a file unless it is there, and open it.
#[derive(Clone, Copy, Debug)]
pub struct CreateRequest<'a> {
    /// Where and for whom.
    pub new: NewObject<'a>,
    /// Type and permission bits for a new file.
    pub mode: u32,
    /// `O_*` flags.
    pub flags: OpenFlags,
    /// What may be done.
    pub intent: CreateIntent,
    /// Clear set-user-id and set-group-id of a file that is there, along with `O_TRUNC`
    /// (`FUSE_OPEN_KILL_SUIDGID`).
    pub kill_suid_sgid: bool,
}

/// TMPFILE: make a file without a name, and open it.
#[derive(Clone, Copy, Debug)]
pub struct TmpfileRequest<'a> {
    /// Who will own it.
    pub caller: Caller,
    /// A directory on the file system to make it on.
    pub parent: NodeId,
    /// Permission bits.
    pub mode: u32,
    /// File mode creation mask.
    pub umask: u32,
    /// `O_*` flags.
    pub flags: OpenFlags,
    /// Labels that it must have from the beginning.
    pub security_contexts: SecurityContexts<'a>,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The host's present time.
    Now,
    /// This time.
    To(Timestamp),
}

/// SETATTR: everything that is `Some` is changed, in the order mode, owner, size, times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttrChanges {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<GuestUid>,
    /// New group.
    pub gid: Option<GuestGid>,
    /// New size in bytes.
    pub size_bytes: Option<u64>,
    /// New access time.
    pub atime: Option<SetTime>,
    /// New modification time.
    pub mtime: Option<SetTime>,
    /// Clear set-user-id, set-group-id and file capabilities with a change of size
    /// (`FATTR_KILL_SUIDGID`).
    pub kill_suid_sgid: bool,
}

/// RENAME and RENAME2.
#[derive(Clone, Copy, Debug)]
pub struct RenameRequest<'a> {
    /// Directory that holds the old name.
    pub parent: NodeId,
    /// The old name.
    pub name: FileName<'a>,
    /// Directory for the new name.
    pub new_parent: NodeId,
    /// The new name.
    pub new_name: FileName<'a>,
    /// `RENAME_*` of renameat2(2); others than NOREPLACE, EXCHANGE and WHITEOUT are `EINVAL`.
    pub flags: u32,
}

/// READ.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// The node.
    pub node: NodeId,
    /// The open file.
    pub handle: HandleId,
    /// Where to start, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub size_bytes: u32,
    /// The guest's present `O_*` flags of the open file.
    pub flags: OpenFlags,
    /// Whether contents may be waited for.
    pub waiting: Waiting,
}

/// What to do when contents are not in memory, but on a disk or a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Wait for them.
    Allowed,
    /// Rather fail with `EAGAIN`, if that is found out at no cost; else wait for them.
    Avoided,
    /// Fail with `EAGAIN`, also when it cannot be found out.
    Refused,
}

/// WRITE.
#[derive(Clone, Copy, Debug)]
pub struct WriteRequest {
    /// The node.
    pub node: NodeId,
    /// The open file.
    pub handle: HandleId,
    /// Where to start, in bytes.
    pub offset: u64,
    /// The guest's present `O_*` flags of the open file.
    pub flags: OpenFlags,
    /// The write comes from the guest's page cache (`FUSE_WRITE_CACHE`), not from a caller.
    pub from_cache: bool,
    /// Clear set-user-id, set-group-id and file capabilities (`FUSE_WRITE_KILL_SUIDGID`).
    pub kill_suid_sgid: bool,
}

/// READDIR and READDIRPLUS.
#[derive(Clone, Copy, Debug)]
pub struct ReadDirRequest {
    /// The node.
    pub node: NodeId,
    /// The open directory.
    pub handle: HandleId,
    /// Opaque cookie of the entry after which to go on; 0 is the start.
    pub offset: u64,
}

/// SETXATTR.
#[derive(Clone, Copy, Debug)]
pub struct SetXattrRequest<'a> {
    /// The node.
    pub node: NodeId,
    /// Name of the attribute.
    pub name: &'a CStr,
    /// Its value.
    pub value: &'a [u8],
    /// `XATTR_CREATE`, `XATTR_REPLACE`.
    pub flags: u32,
    /// Clear set-group-id along with an access ACL (`FUSE_SETXATTR_ACL_KILL_SGID`).
    pub kill_sgid: bool,
}

/// COPY_FILE_RANGE and COPY_FILE_RANGE_64.
#[derive(Clone, Copy, Debug)]
pub struct CopyRangeRequest {
    /// Node to copy from.
    pub node_in: NodeId,
    /// Open file to copy from.
    pub handle_in: HandleId,
    /// Where to start there, in bytes.
    pub offset_in: u64,
    /// Node to copy to.
    pub node_out: NodeId,
    /// Open file to copy to.
    pub handle_out: HandleId,
    /// Where to start there, in bytes.
    pub offset_out: u64,
    /// How much, in bytes.
    pub len_bytes: u64,
    /// Flags of copy_file_range(2): none is defined, so anything else is `EINVAL`.
    pub flags: u64,
    /// Who copies. With HANDLE_KILLPRIV_V2 anyone but root takes set-id bits and file
    /// capabilities off the file that is written.
    pub caller: Caller,
}

/// FALLOCATE.
#[derive(Clone, Copy, Debug)]
pub struct FallocateRequest {
    /// The node.
    pub node: NodeId,
    /// The open file.
    pub handle: HandleId,
    /// `FALLOC_FL_*`.
    pub mode: u32,
    /// Where to start, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub len_bytes: u64,
    /// Who asks; of weight as in [`CopyRangeRequest::caller`].
    pub caller: Caller,
}

/// A file handle and the node it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenNode {
    /// The node.
    pub node: NodeId,
    /// The open file or directory.
    pub handle: HandleId,
}

/// FLUSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushRequest {
    /// The open file.
    pub open: OpenNode,
    /// Whose descriptor was closed: with it go all POSIX locks of this owner on the file.
    pub owner: LockOwner,
}

/// RELEASE and RELEASEDIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseRequest {
    /// The open file or directory.
    pub open: OpenNode,
    /// Owner of the BSD lock that goes with it (`FUSE_RELEASE_FLOCK_UNLOCK`), if it may hold one.
    pub flock_owner: Option<LockOwner>,
}

/// GETLK, SETLK and SETLKW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRequest {
    /// The node.
    pub node: NodeId,
    /// The open file.
    pub handle: HandleId,
    /// Who wants it.
    pub owner: LockOwner,
    /// Which family.
    pub kind: LockKind,
    /// What is wanted.
    pub lock_type: LockType,
    /// Where; everything for [`LockKind::Flock`].
    pub range: LockRange,
    /// Process in the guest, for GETLK to tell its neighbours.
    pub pid: u32,
}

/// IOCTL on a file or directory. Only commands whose size is part of their number arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoctlRequest {
    /// The node.
    pub node: NodeId,
    /// The open file or directory.
    pub handle: HandleId,
    /// Who asks.
    pub caller: Caller,
    /// The command (`_IOC` encoding).
    pub command: u32,
    /// The guest's task runs in 32-bit mode (`FUSE_IOCTL_32BIT`).
    pub is_32_bit: bool,
}

/// Whether a sync may leave out metadata that is not needed to read the contents back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncScope {
    /// fsync(2).
    Everything,
    /// fdatasync(2).
    ContentsOnly,
}

/// A file system that can be served to a guest. See the module head of [`crate::fs`].
pub trait FileSystem: GrantOwner + Send + Sync + 'static {
    /// Which capabilities to ask of the guest.
    fn session_wishes(&self) -> SessionWishes;
    /// A guest mounts. Everything that an earlier session held must be gone.
    fn start_session(&self, negotiated: &Negotiated);
    /// The guest has unmounted or vanished: frees every node and handle.
    fn end_session(&self);

    /// Finds `name` in `parent`. Errors: `EBADF` unknown node, `ENOTDIR`, `ENOENT`.
    fn lookup(&self, parent: NodeId, name: FileName<'_>) -> Result<Lookup<'_>>;
    /// Finds `node` itself, also when the guest has forgotten it: LOOKUP of `.`, which guests
    /// that export the mount send with EXPORT_SUPPORT. Errors: `ESTALE`.
    fn lookup_self(&self, node: NodeId) -> Result<Entry<'_>>;
    /// Finds the directory that holds the directory `node`, for the same guests: LOOKUP of `..`.
    /// The root is its own parent. Errors: `ESTALE`, `ENOTDIR`.
    fn lookup_parent(&self, node: NodeId) -> Result<Entry<'_>>;
    /// The guest gives `count` lookups of `node` back. Unknown nodes and excess are ignored.
    fn forget(&self, node: NodeId, count: u64);

    /// Attributes; through `handle` when the guest has the node open.
    fn getattr(&self, node: NodeId, handle: Option<HandleId>) -> Result<AttrReply<Attr>>;
    /// Attributes with birth time; `mask` is what the guest's statx(2) asks for.
    fn statx(
        &self,
        node: NodeId,
        handle: Option<HandleId>,
        mask: u32,
    ) -> Result<AttrReply<ExtendedAttr>>;
    /// Changes attributes and returns the new ones. What was changed before an error stays.
    fn setattr(
        &self,
        node: NodeId,
        handle: Option<HandleId>,
        changes: &AttrChanges,
    ) -> Result<AttrReply<Attr>>;
    /// Whether `caller` may do `mask` (`R_OK | W_OK | X_OK`). Errors: `EACCES`.
    fn access(&self, caller: &Caller, node: NodeId, mask: u32) -> Result<()>;
    /// Totals of the file system that holds `node`.
    fn statfs(&self, node: NodeId) -> Result<FsTotals>;

    /// Reads the target of a symbolic link into `buf` and returns its length in bytes.
    /// Errors: `EINVAL` not a link, `ENAMETOOLONG` longer than `buf`.
    fn readlink(&self, node: NodeId, buf: &mut [u8]) -> Result<usize>;
    /// Makes a symbolic link.
    fn symlink(&self, new: &NewObject<'_>, target: &CStr) -> Result<Entry<'_>>;
    /// Makes a file, FIFO, socket or device node.
    fn mknod(&self, new: &NewObject<'_>, mode: u32, rdev: u32) -> Result<Entry<'_>>;
    /// Makes a directory.
    fn mkdir(&self, new: &NewObject<'_>, mode: u32) -> Result<Entry<'_>>;
    /// Removes a name of anything but a directory.
    fn unlink(&self, parent: NodeId, name: FileName<'_>) -> Result<()>;
    /// Removes an empty directory.
    fn rmdir(&self, parent: NodeId, name: FileName<'_>) -> Result<()>;
    /// Renames. Errors: `EINVAL` unknown flags.
    fn rename(&self, request: &RenameRequest<'_>) -> Result<()>;
    /// Gives `node` another name.
    fn link(&self, node: NodeId, new_parent: NodeId, new_name: FileName<'_>) -> Result<Entry<'_>>;

    /// Opens a regular file. Errors: `EISDIR`; `ELOOP` for a symbolic link; `ENXIO` for FIFOs,
    /// sockets and devices, which are never opened on the host.
    fn open(&self, node: NodeId, flags: OpenFlags, kill_suid_sgid: bool) -> Result<Opened<'_>>;
    /// Makes and opens a file; opens it if it exists and `O_EXCL` is not asked for.
    fn create(&self, request: &CreateRequest<'_>) -> Result<(Entry<'_>, Opened<'_>)>;
    /// Makes and opens a file without a name.
    fn tmpfile(&self, request: &TmpfileRequest<'_>) -> Result<(Entry<'_>, Opened<'_>)>;
    /// Reads; returns the bytes read. Errors: `EBADF`, `EISDIR` for a directory's handle.
    fn read(&self, request: &ReadRequest, sink: &mut dyn DataSink) -> Result<usize>;
    /// Writes; returns the bytes written. Errors: `EBADF`.
    fn write(&self, request: &WriteRequest, source: &mut dyn DataSource) -> Result<usize>;
    /// A descriptor of the guest was closed.
    fn flush(&self, request: &FlushRequest) -> Result<()>;
    /// The last descriptor of the guest was closed: the handle goes away.
    fn release(&self, request: &ReleaseRequest) -> Result<()>;
    /// Makes contents durable.
    fn fsync(&self, open: OpenNode, scope: SyncScope) -> Result<()>;
    /// lseek(2) for `SEEK_DATA` and `SEEK_HOLE`; returns the offset in bytes.
    fn lseek(&self, open: OpenNode, offset: u64, whence: u32) -> Result<u64>;
    /// fallocate(2).
    fn fallocate(&self, request: &FallocateRequest) -> Result<()>;
    /// copy_file_range(2); returns the bytes copied.
    fn copy_file_range(&self, request: &CopyRangeRequest) -> Result<u64>;

    /// Opens a directory. Errors: `ENOTDIR`.
    fn opendir(&self, node: NodeId, flags: OpenFlags) -> Result<Opened<'_>>;
    /// Reads a directory into `sink` until it is full or the directory ends.
    /// Errors: `ENOTDIR` for a file's handle.
    fn readdir(&self, request: &ReadDirRequest, sink: &mut dyn DirSink) -> Result<()>;
    /// The same with attributes. An entry that cannot be looked up is passed on without them,
    /// never left out. An error after the first entry ends the list without an error.
    fn readdirplus<'fs>(
        &'fs self,
        request: &ReadDirRequest,
        sink: &mut dyn DirPlusSink<'fs>,
    ) -> Result<()>;
    /// Closes a directory.
    fn releasedir(&self, request: &ReleaseRequest) -> Result<()>;
    /// Makes a directory durable.
    fn fsyncdir(&self, open: OpenNode, scope: SyncScope) -> Result<()>;

    /// Sets an extended attribute. Errors: `ENOSYS` when they are switched off.
    fn setxattr(&self, request: &SetXattrRequest<'_>) -> Result<()>;
    /// Reads an extended attribute into `buf`; with an empty `buf`, only its length in bytes.
    /// Errors: `ENOSYS` switched off, `ENODATA`, `ERANGE` longer than `buf`.
    fn getxattr(&self, node: NodeId, name: &CStr, buf: &mut [u8]) -> Result<usize>;
    /// Lists names, each with its NUL, into `buf`; with an empty `buf`, only the length.
    fn listxattr(&self, node: NodeId, buf: &mut [u8]) -> Result<usize>;
    /// Removes an extended attribute.
    fn removexattr(&self, node: NodeId, name: &CStr) -> Result<()>;

    /// The first lock that stands in the way of this one. Errors: `ENOSYS` not negotiated.
    fn getlk(&self, request: &LockRequest) -> Result<Option<HeldLock>>;
    /// Takes or gives back a lock, without waiting. Errors: `ENOSYS` not negotiated, `EAGAIN`
    /// somebody is in the way, `ENOLCK` no room for more.
    fn setlk(&self, request: &LockRequest) -> Result<()>;
    /// The same, but where somebody is in the way the request is set aside in `room` until they
    /// are not. Errors: as `setlk` but `EAGAIN`; `EDEADLK` they wait for this owner; `ENOLCK` it
    /// cannot be set aside.
    fn setlkw(&self, request: &LockRequest, room: &mut dyn WaitingRoom) -> Result<Waited>;
    /// The guest takes back a request, which may be set aside, done, or yet to come: a caller
    /// that waits for a lock has got a signal.
    fn interrupt(&self, request: RequestId);
    /// ioctl(2) with `input` from the guest; returns how many bytes of `output` it filled.
    /// Errors: `ENOTTY` for every command that is not known to be harmless.
    fn ioctl(&self, request: &IoctlRequest, input: &[u8], output: &mut [u8]) -> Result<usize>;

    /// syncfs(2) on the file system that holds `node`.
    fn syncfs(&self, node: NodeId) -> Result<()>;
}
