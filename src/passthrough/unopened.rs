//! What: files and directories that the guest uses without opening them (`--no-open`,
//! `--no-opendir`).
//!
//! In: requests that name a file by its node alone. Out: a descriptor for it. A guest that got
//! `ENOSYS` for an OPEN sends neither OPEN nor RELEASE any more, until it unmounts; its requests
//! carry the handle 0, which no file that was opened has. Invariants: a descriptor is opened for
//! reading until somebody writes, so that files which are only read can be executed on the host
//! meanwhile and need not be writable; what open(2) refuses, the first READ or WRITE returns.
//!
//! The same holds for directories with OPENDIR and RELEASEDIR.
//!
//! ```text
//!   handle != 0 .................. store::handles
//!   handle == 0, of a file ....... store::unopened_files -> there? -> else open and keep
//!   handle == 0, of a directory .. dir_streams for READDIR, else open for the one request
//! ```

use std::os::fd::AsFd;
use std::sync::Arc;

use super::PassthroughFs;
use super::cache_policy::Access;
use super::file_systems::reports_nothing_at_close;
use super::store::fd_budget::{FdTicket, HeldFd};
use super::store::handles::{Handle, Open};
use super::store::unopened_files::Purpose;
use crate::fs::filesystem::OpenNode;
use crate::fs::types::{HandleId, NodeId};
use crate::sys::data;
use crate::sys::errno::{Errno, Result};
use crate::sys::meta::FileType;
use crate::sys::open::HostOpenFlags;
use crate::wire::flags::SessionFlags;

/// What a guest sends where it has no handle. None that is given out has this number.
const NO_HANDLE: HandleId = HandleId::new(0);

impl PassthroughFs {
    /// Whether the guest uses files without opening them.
    pub(super) fn opens_no_files(&self) -> bool {
        // Only asked for by `--no-open`.
        self.negotiated().contains(SessionFlags::NO_OPEN_SUPPORT)
    }

    /// Whether the guest uses directories without opening them.
    pub(super) fn opens_no_directories(&self) -> bool {
        // Only asked for by `--no-opendir`.
        self.negotiated().contains(SessionFlags::NO_OPENDIR_SUPPORT)
    }

    /// Whether a request with this handle names its directory by node alone.
    pub(super) fn is_unopened_directory(&self, handle: HandleId) -> bool {
        handle == NO_HANDLE && self.opens_no_directories()
    }

    /// Whether a request with this handle names its file by node alone.
    pub(super) fn is_unopened(&self, handle: HandleId) -> bool {
        handle == NO_HANDLE && self.opens_no_files()
    }

    /// The open file or directory that a request names, for `purpose`.
    ///
    /// # Errors
    /// `EBADF`; what open(2) says of a file that the guest has not opened.
    pub(super) fn opened(&self, open: OpenNode, purpose: Purpose) -> Result<Arc<Handle>> {
        if open.handle == NO_HANDLE && (self.opens_no_files() || self.opens_no_directories()) {
            self.unopened(open.node, purpose)
        } else {
            self.handles.get(open)
        }
    }

    /// A ticket for a descriptor that the guest shall hold.
    ///
    /// # Errors
    /// `ENFILE` when there is none left.
    pub(super) fn ticket(&self) -> Result<FdTicket> {
        self.relieved(|| self.store.budget().take())
    }

    /// Runs a step that takes a descriptor; when there is none left, once more without those of
    /// what was not opened. They are the first to go: it can all be opened again.
    ///
    /// # Errors
    /// What `step` says.
    pub(super) fn relieved<T>(&self, step: impl Fn() -> Result<T>) -> Result<T> {
        match step() {
            Err(Errno::EMFILE | Errno::ENFILE) if self.close_unopened() => step(),
            done => done,
        }
    }

    /// Whether there was anything to close.
    fn close_unopened(&self) -> bool {
        let readers = self.idle_readers.clear();
        let (files, directories) = (self.unopened_files.clear(), self.dir_streams.clear());
        readers != 0 || files != 0 || directories != 0
    }

    fn unopened(&self, node: NodeId, purpose: Purpose) -> Result<Arc<Handle>> {
        if let Some(file) = self.unopened_files.get(node, purpose) {
            return Ok(file);
        }
        let inode = self.store.get(node)?;
        if inode.file_type == FileType::Directory && self.opens_no_directories() {
            let directory = self.directory_of(inode, HostOpenFlags::empty())?;
            let handle = Handle::of_node(node, Open::Directory(directory));
            return Ok(Arc::new(handle));
        }
        if !self.opens_no_files() {
            return Err(Errno::EBADF);
        }
        let flags = match purpose {
            Purpose::Look => HostOpenFlags::empty(),
            Purpose::Change => HostOpenFlags::RDWR,
        };
        let ticket = self.ticket()?;
        let pinned = inode.reach()?;
        let file = self.relieved(|| self.reopen(inode.file_type, pinned.as_fd(), flags))?;
        let file = HeldFd::new(file, ticket);
        let file = self.unopened_files.put(node, file, purpose);
        // It may have been forgotten meanwhile, and then nobody else would take it out.
        self.drop_unopened_if_forgotten(node);
        Ok(file)
    }

    /// The guest has given lookups of a node back: nothing of it is kept without need.
    pub(super) fn drop_unopened_if_forgotten(&self, node: NodeId) {
        if self.store.get(node).is_err() {
            self.unopened_files.remove(node);
            self.dir_streams.remove(node);
        }
    }

    /// Flags for a file that CREATE makes or finds. What concerns a single open file has no
    /// meaning here: all requests share a descriptor, and each WRITE brings its own flags.
    pub(super) fn flags_of_shared(flags: HostOpenFlags) -> HostOpenFlags {
        flags & (HostOpenFlags::WRONLY | HostOpenFlags::RDWR | HostOpenFlags::TRUNC)
    }

    /// Keeps what CREATE or TMPFILE has opened; this process may not be able to open it again.
    /// The guest gets no handle for it: it would never send the RELEASE.
    pub(super) fn keep_unopened(&self, node: NodeId, file: HeldFd, access: Access) -> HandleId {
        match access {
            Access::Read => drop(self.unopened_files.put(node, file, Purpose::Look)),
            Access::Both => drop(self.unopened_files.put(node, file, Purpose::Change)),
            // Of no use to who reads.
            Access::Write => drop(file),
        }
        NO_HANDLE
    }

    /// FLUSH. `ENOSYS` makes the guest send it never again, so it is the answer where it means
    /// nothing; what the guest has changed through mappings it writes out all the same.
    ///
    /// # Errors
    /// `EBADF`, `ENOSYS`, and what close(2) says.
    pub(super) fn flush_unopened(&self, node: NodeId) -> Result<()> {
        let inode = self.store.get(node)?;
        let pinned = inode.reach()?;
        let kind = self.file_systems.kind(inode.identity.place, pinned.as_fd());
        let gives_up_locks = self.negotiated().contains(SessionFlags::POSIX_LOCKS);
        if reports_nothing_at_close(kind) && !gives_up_locks {
            return Err(Errno::ENOSYS);
        }
        match self.unopened_files.get(node, Purpose::Look) {
            Some(handle) => data::close_duplicate(handle.file()?),
            None => Ok(()),
        }
    }
}
