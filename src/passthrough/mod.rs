//! A directory of the host as a [`FileSystem`].
//!
//! In: operations with checked names and typed ids. Out: what the host's kernel says. The host's
//! file system is the only source of truth: nothing is cached here but which node is which file.
//!
//! ```text
//!   namespace open dir attr data xattr ioctl locks export   the operations, a family to a file
//!        \      |     |    /
//!         lookup    privilege  killpriv          a name to a node; acting as the caller
//!             \      /
//!              store                             nodes and handles, by number and identity
//!                |
//!               sys                              system calls
//! ```
//!
//! Invariants: a guest names files by node and one path component only, so nothing outside the
//! share can be named; nodes hold their files by `O_PATH` descriptors, or by file handles when
//! there are too few of those; only regular files and directories are ever opened beyond that.
//! Locks: those of `store`, never held across a system call, and each open directory's own (see
//! `dir`); no two of them together, but for the order that `store::inodes` states. The locks of
//! `locks` are apart from these.

mod acl;
mod attr;
mod cache_policy;
mod data;
mod dir;
mod dir_streams;
mod export;
mod file_systems;
mod ioctl;
mod killpriv;
mod locks;
mod lookup;
mod namespace;
mod open;
mod privilege;
mod prompt;
mod reuse;
mod secctx;
pub mod settings;
pub mod setup;
mod store;
#[cfg(test)]
mod tests;
mod unopened;
mod xattr;

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fs::data::{DataSink, DataSource};
use crate::fs::filesystem::{
    AttrChanges, CopyRangeRequest, CreateRequest, FallocateRequest, FileSystem, FlushRequest,
    IoctlRequest, LockRequest, NewObject, OpenNode, ReadDirRequest, ReadRequest, ReleaseRequest,
    RenameRequest, SetXattrRequest, SyncScope, TmpfileRequest, WriteRequest,
};
use crate::fs::late::{RequestId, Waited, WaitingRoom};
use crate::fs::types::{
    Attr, AttrReply, Caller, Dependency, DirPlusSink, DirSink, Entry, ExtendedAttr, FileName,
    FsTotals, GrantOwner, HandleId, HeldLock, Lookup, Negotiated, NodeId, Opened, SessionWishes,
};
use crate::ids::translator::Translator;
use crate::sys::errno::Result;
use crate::sys::proc_fd::ProcFd;
use crate::wire::flags::{OpenFlags, SessionFlags};
use acl::ACL_CAPABILITIES;
use dir_streams::DirStreams;
use file_systems::FileSystems;
use locks::Locks;
use privilege::GroupKnowledge;
use settings::{CachePolicy, Negotiation, Settings};
use store::handles::HandleStore;
use store::idle_readers::IdleReaders;
use store::inodes::InodeStore;
use store::retired::Forgotten;
use store::unopened_files::UnopenedFiles;

/// What is asked of every guest. SETXATTR_EXT costs nothing and tells more; INIT_EXT carries the
/// flags of the upper half.
const WANTED_ALWAYS: SessionFlags = SessionFlags::ASYNC_READ
    .union(SessionFlags::BIG_WRITES)
    .union(SessionFlags::HAS_IOCTL_DIR)
    .union(SessionFlags::ASYNC_DIO)
    .union(SessionFlags::PARALLEL_DIROPS)
    .union(SessionFlags::MAX_PAGES)
    .union(SessionFlags::SUBMOUNTS)
    .union(SessionFlags::SETXATTR_EXT)
    .union(SessionFlags::INIT_EXT)
    .union(SessionFlags::CREATE_SUPP_GROUP)
    .union(SessionFlags::ALLOW_IDMAP);

/// Lists without the rest of what they need would give wrong rights to new files; and the umask
/// is left to the host for their sake only.
const DEPENDENCIES: &[Dependency] = &[
    Dependency {
        capability: SessionFlags::POSIX_ACL,
        needs: ACL_CAPABILITIES,
    },
    Dependency {
        capability: SessionFlags::DONT_MASK,
        needs: ACL_CAPABILITIES,
    },
];

/// A directory of the host, served to one guest.
#[derive(Debug)]
pub struct PassthroughFs {
    settings: Settings,
    translator: Translator,
    store: InodeStore,
    handles: HandleStore,
    locks: Locks,
    idle_readers: IdleReaders,
    unopened_files: UnopenedFiles,
    dir_streams: DirStreams,
    file_systems: FileSystems,
    proc_fd: Arc<ProcFd>,
    /// The capabilities that the present session settled on; see `negotiated`.
    session: AtomicU64,
}

impl PassthroughFs {
    /// What the present session settled on; nothing before the first.
    fn negotiated(&self) -> SessionFlags {
        // Acquire: partner of the Release in `begin`.
        SessionFlags::from_bits_retain(self.session.load(Ordering::Acquire))
    }

    fn group_knowledge(&self) -> GroupKnowledge {
        if self.negotiated().contains(SessionFlags::CREATE_SUPP_GROUP) {
            GroupKnowledge::Exact
        } else {
            GroupKnowledge::None
        }
    }

    /// Forgets everything that the guest held and starts with these capabilities.
    fn begin(&self, flags: SessionFlags) {
        self.locks.clear();
        self.handles.clear();
        self.idle_readers.clear();
        self.unopened_files.clear();
        self.dir_streams.clear();
        let is_exported = flags.contains(SessionFlags::EXPORT_SUPPORT);
        self.store.restart(match is_exported {
            true => Forgotten::Retire,
            false => Forgotten::Vanish,
        });
        self.file_systems.clear();
        // Release: partner of the Acquire in `negotiated`.
        self.session.store(flags.bits(), Ordering::Release);
    }

    fn wanted(&self) -> SessionFlags {
        let settings = &self.settings;
        let mut wanted = WANTED_ALWAYS;
        let readdirplus =
            settings.readdirplus && settings.cache != CachePolicy::Never && !settings.no_readdir;
        wanted.set(SessionFlags::DO_READDIRPLUS, readdirplus);
        wanted.set(SessionFlags::READDIRPLUS_AUTO, readdirplus);
        wanted.set(SessionFlags::HANDLE_KILLPRIV_V2, settings.killpriv_v2);
        wanted.set(SessionFlags::POSIX_LOCKS, settings.posix_lock);
        wanted.set(SessionFlags::FLOCK_LOCKS, settings.flock);
        // A node that the guest has forgotten can be found again only by its file handle.
        let can_find_again = self.store.has_handles();
        wanted.set(SessionFlags::EXPORT_SUPPORT, can_find_again);
        wanted.set(SessionFlags::NO_EXPORT_SUPPORT, !can_find_again);
        wanted | cache_policy::wanted(settings)
    }

    fn wishes(&self) -> SessionWishes {
        let mut wishes = SessionWishes {
            wanted: self.wanted(),
            required: SessionFlags::empty(),
            missed: SessionFlags::empty(),
            dependencies: DEPENDENCIES,
        };
        for (negotiation, capabilities) in [
            (self.settings.posix_acl, ACL_CAPABILITIES),
            (self.settings.security_label, SessionFlags::SECURITY_CTX),
        ] {
            match negotiation {
                Negotiation::Never => {}
                Negotiation::Auto => {
                    wishes.wanted |= capabilities;
                    wishes.missed |= capabilities;
                }
                Negotiation::Always => wishes.required |= capabilities,
            }
        }
        wishes
    }
}

impl GrantOwner for PassthroughFs {
    fn take_back_lookup(&self, node: NodeId) {
        self.forget(node, 1);
    }

    fn take_back_handle(&self, node: NodeId, handle: HandleId) {
        // It may be gone already, with its session.
        let taken = self.handles.remove(OpenNode { node, handle }, |_| Ok(()));
        drop(taken);
    }
}

impl FileSystem for PassthroughFs {
    fn session_wishes(&self) -> SessionWishes {
        self.wishes()
    }

    fn start_session(&self, negotiated: &Negotiated) {
        self.begin(negotiated.flags);
    }

    fn end_session(&self) {
        self.begin(SessionFlags::empty());
    }

    fn lookup(&self, parent: NodeId, name: FileName<'_>) -> Result<Lookup<'_>> {
        let parent = self.store.get(parent)?;
        let found = self.lookup_in(&parent, name);
        cache_policy::looked_up(found, self.settings.negative_valid)
    }

    fn lookup_self(&self, node: NodeId) -> Result<Entry<'_>> {
        self.find_again(node)
    }

    fn lookup_parent(&self, node: NodeId) -> Result<Entry<'_>> {
        self.find_parent(node)
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.store.forget(node, count);
        self.unlock_forgotten(node);
        self.drop_reader_if_forgotten(node);
        if self.opens_no_files() || self.opens_no_directories() {
            self.drop_unopened_if_forgotten(node);
        }
    }

    fn getattr(&self, node: NodeId, handle: Option<HandleId>) -> Result<AttrReply<Attr>> {
        self.node_attr(node, handle)
    }

    fn statx(
        &self,
        node: NodeId,
        handle: Option<HandleId>,
        _mask: u32,
    ) -> Result<AttrReply<ExtendedAttr>> {
        self.node_extended_attr(node, handle)
    }

    fn setattr(
        &self,
        node: NodeId,
        handle: Option<HandleId>,
        changes: &AttrChanges,
    ) -> Result<AttrReply<Attr>> {
        self.change_attr(node, handle, changes)
    }

    fn access(&self, caller: &Caller, node: NodeId, mask: u32) -> Result<()> {
        self.check_access(caller, node, mask)
    }

    fn statfs(&self, node: NodeId) -> Result<FsTotals> {
        self.fs_totals(node)
    }

    fn readlink(&self, node: NodeId, buf: &mut [u8]) -> Result<usize> {
        self.read_symlink(node, buf)
    }

    fn symlink(&self, new: &NewObject<'_>, target: &CStr) -> Result<Entry<'_>> {
        self.make_symlink(new, target)
    }

    fn mknod(&self, new: &NewObject<'_>, mode: u32, rdev: u32) -> Result<Entry<'_>> {
        self.make_node(new, mode, rdev)
    }

    fn mkdir(&self, new: &NewObject<'_>, mode: u32) -> Result<Entry<'_>> {
        self.make_directory(new, mode)
    }

    fn unlink(&self, parent: NodeId, name: FileName<'_>) -> Result<()> {
        self.remove_file(parent, name)
    }

    fn rmdir(&self, parent: NodeId, name: FileName<'_>) -> Result<()> {
        self.remove_directory(parent, name)
    }

    fn rename(&self, request: &RenameRequest<'_>) -> Result<()> {
        self.rename_entry(request)
    }

    fn link(&self, node: NodeId, new_parent: NodeId, new_name: FileName<'_>) -> Result<Entry<'_>> {
        self.make_link(node, new_parent, new_name)
    }

    fn open(&self, node: NodeId, flags: OpenFlags, kill_suid_sgid: bool) -> Result<Opened<'_>> {
        self.open_node(node, flags, self.set_ids_by_flag(kill_suid_sgid))
    }

    fn create(&self, request: &CreateRequest<'_>) -> Result<(Entry<'_>, Opened<'_>)> {
        self.create_file(request)
    }

    fn tmpfile(&self, request: &TmpfileRequest<'_>) -> Result<(Entry<'_>, Opened<'_>)> {
        self.create_unnamed(request)
    }

    fn read(&self, request: &ReadRequest, sink: &mut dyn DataSink) -> Result<usize> {
        self.read_file(request, sink)
    }

    fn write(&self, request: &WriteRequest, source: &mut dyn DataSource) -> Result<usize> {
        self.write_file(request, source)
    }

    fn flush(&self, request: &FlushRequest) -> Result<()> {
        let flushed = self.flush_file(request.open);
        self.unlock_flushed(request);
        flushed
    }

    fn release(&self, request: &ReleaseRequest) -> Result<()> {
        let closed = self.close_file(request.open);
        self.unlock_released(request);
        closed
    }

    fn fsync(&self, open: OpenNode, scope: SyncScope) -> Result<()> {
        self.sync_file(open, scope)
    }

    fn lseek(&self, open: OpenNode, offset: u64, whence: u32) -> Result<u64> {
        self.seek_file(open, offset, whence)
    }

    fn fallocate(&self, request: &FallocateRequest) -> Result<()> {
        self.allocate_file(request)
    }

    fn copy_file_range(&self, request: &CopyRangeRequest) -> Result<u64> {
        self.copy_files(request)
    }

    fn opendir(&self, node: NodeId, flags: OpenFlags) -> Result<Opened<'_>> {
        self.open_directory(node, flags)
    }

    fn readdir(&self, request: &ReadDirRequest, sink: &mut dyn DirSink) -> Result<()> {
        self.read_directory(request, sink)
    }

    fn readdirplus<'fs>(
        &'fs self,
        request: &ReadDirRequest,
        sink: &mut dyn DirPlusSink<'fs>,
    ) -> Result<()> {
        self.read_directory_plus(request, sink)
    }

    fn releasedir(&self, request: &ReleaseRequest) -> Result<()> {
        let closed = self.close_directory(request.open);
        self.unlock_released(request);
        closed
    }

    fn fsyncdir(&self, open: OpenNode, scope: SyncScope) -> Result<()> {
        self.sync_directory(open, scope)
    }

    fn setxattr(&self, request: &SetXattrRequest<'_>) -> Result<()> {
        self.set_node_xattr(request)
    }

    fn getxattr(&self, node: NodeId, name: &CStr, buf: &mut [u8]) -> Result<usize> {
        self.node_xattr(node, name, buf)
    }

    fn listxattr(&self, node: NodeId, buf: &mut [u8]) -> Result<usize> {
        self.list_node_xattrs(node, buf)
    }

    fn removexattr(&self, node: NodeId, name: &CStr) -> Result<()> {
        self.remove_node_xattr(node, name)
    }

    fn getlk(&self, request: &LockRequest) -> Result<Option<HeldLock>> {
        self.lock_holder(request)
    }

    fn setlk(&self, request: &LockRequest) -> Result<()> {
        self.take_lock(request)
    }

    fn setlkw(&self, request: &LockRequest, room: &mut dyn WaitingRoom) -> Result<Waited> {
        self.take_lock_or_wait(request, room)
    }

    fn interrupt(&self, request: RequestId) {
        self.locks.interrupt(request);
    }

    fn ioctl(&self, request: &IoctlRequest, input: &[u8], output: &mut [u8]) -> Result<usize> {
        self.run_ioctl(request, input, output)
    }

    fn syncfs(&self, node: NodeId) -> Result<()> {
        self.sync_fs_of(node)
    }
}
