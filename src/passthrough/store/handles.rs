//! What: the files and directories that the guest has open, by number.
//!
//! In: what was opened. Out: the same, for as long as an operation needs it. Invariants: numbers
//! are never used twice; a handle belongs to one node and answers only together with it. Locks:
//! none to find a handle; see `table`. Does not: close anything while a lock is held.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::contents::{ContentsStamp, WaitingStamp};
use super::fd_budget::HeldFd;
use super::table::{Numbered, Table};
use crate::fs::filesystem::OpenNode;
use crate::fs::types::{HandleId, NodeId};
use crate::passthrough::dir::OpenDirectory;
use crate::passthrough::prompt::ProbeCell;
use crate::sys::errno::{Errno, Result};

/// What a handle stands for.
#[derive(Debug)]
pub(in crate::passthrough) enum Open {
    /// A regular file.
    File(HeldFd),
    /// A directory.
    Directory(OpenDirectory),
}

/// An open file or directory, and the node it belongs to.
#[derive(Debug)]
pub(in crate::passthrough) struct Handle {
    number: u64,
    node: NodeId,
    open: Open,
    waiting: Option<WaitingStamp>,
    /// The state in which the file may be used for another OPEN.
    reusable_in: Option<ContentsStamp>,
    /// How to find out what a read would wait for.
    pub(in crate::passthrough) probe: ProbeCell,
}

impl Handle {
    /// What stands for a node that was not opened by the guest, and has no number.
    pub(in crate::passthrough) fn of_node(node: NodeId, open: Open) -> Self {
        Handle {
            number: NO_NUMBER,
            node,
            open,
            waiting: None,
            reusable_in: None,
            probe: ProbeCell::default(),
        }
    }

    /// The file.
    ///
    /// # Errors
    /// `EISDIR` for a directory.
    pub(in crate::passthrough) fn file(&self) -> Result<BorrowedFd<'_>> {
        match &self.open {
            Open::File(file) => Ok(file.as_fd()),
            Open::Directory(_) => Err(Errno::EISDIR),
        }
    }

    /// Whose it is.
    pub(in crate::passthrough) fn node(&self) -> NodeId {
        self.node
    }

    /// The file, if it may be used for another OPEN, and the state it has to be in then.
    pub(in crate::passthrough) fn into_reusable(self) -> Option<(HeldFd, ContentsStamp)> {
        match (self.open, self.reusable_in) {
            (Open::File(file), Some(state)) => Some((file, state)),
            (Open::File(_), None) | (Open::Directory(_), _) => None,
        }
    }

    /// The guest reads through this handle, which proves that it has got it.
    pub(in crate::passthrough) fn note_read(&self) {
        if let Some(waiting) = &self.waiting {
            waiting.arrive();
        }
    }

    /// The directory.
    ///
    /// # Errors
    /// `ENOTDIR` for a file.
    pub(in crate::passthrough) fn directory(&self) -> Result<&OpenDirectory> {
        match &self.open {
            Open::File(_) => Err(Errno::ENOTDIR),
            Open::Directory(directory) => Ok(directory),
        }
    }

    /// The descriptor, of either.
    pub(in crate::passthrough) fn any(&self) -> BorrowedFd<'_> {
        match &self.open {
            Open::File(file) => file.as_fd(),
            Open::Directory(directory) => directory.as_fd(),
        }
    }
}

impl Numbered for Handle {
    fn number(&self) -> u64 {
        self.number
    }
}

/// What guests send where they have no handle.
const NO_NUMBER: u64 = 0;

/// Places for the file that was opened last; a node has one, which it shares with others.
const LATEST_COUNT: usize = 1024;

/// The files and directories that the guest has open.
#[derive(Debug)]
pub(in crate::passthrough) struct HandleStore {
    by_number: Table<Handle>,
    /// By node, the number of a handle that it may have.
    latest: Box<[AtomicU64]>,
}

impl HandleStore {
    /// A store that holds nothing.
    pub(in crate::passthrough) fn new() -> Self {
        HandleStore {
            by_number: Table::new(NO_NUMBER.saturating_add(1)),
            latest: std::iter::repeat_with(|| AtomicU64::new(NO_NUMBER))
                .take(LATEST_COUNT)
                .collect(),
        }
    }

    /// Gives a number to what was opened.
    ///
    /// # Errors
    /// `ENFILE` when there are as many handles as there are numbers for.
    pub(in crate::passthrough) fn insert(&self, node: NodeId, open: Open) -> Result<HandleId> {
        self.insert_file(node, open, None, None)
    }

    /// The same for a file, with a stamp that waits for the guest to use the handle, and the state
    /// in which the file may be used for another OPEN.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub(in crate::passthrough) fn insert_file(
        &self,
        node: NodeId,
        open: Open,
        waiting: Option<WaitingStamp>,
        reusable_in: Option<ContentsStamp>,
    ) -> Result<HandleId> {
        let handle = self.by_number.insert_with(|number| Handle {
            number,
            node,
            open,
            waiting,
            reusable_in,
            probe: ProbeCell::default(),
        });
        let handle = handle.ok_or(Errno::ENFILE)?;
        if let (Open::File(_), Some(latest)) = (&handle.open, self.latest(node)) {
            // Relaxed: it is a number to begin with; `get` looks whose it is.
            latest.store(handle.number, Ordering::Relaxed);
        }
        Ok(HandleId::new(handle.number))
    }

    /// A file of this node that the guest has open, if that is easily found. Nobody may read or
    /// write through it: how it was opened is the guest's affair.
    pub(in crate::passthrough) fn any_file_of(&self, node: NodeId) -> Option<Arc<Handle>> {
        let handle = HandleId::new(self.latest(node)?.load(Ordering::Relaxed));
        let found = self.get(OpenNode { node, handle }).ok()?;
        found.file().is_ok().then_some(found)
    }

    fn latest(&self, node: NodeId) -> Option<&AtomicU64> {
        // Node ids are numbered one after the other.
        let index = node.raw().checked_rem(u64::try_from(LATEST_COUNT).ok()?)?;
        self.latest.get(usize::try_from(index).ok()?)
    }

    /// What a handle stands for.
    ///
    /// # Errors
    /// `EBADF` for an unknown handle, or one of another node.
    pub(in crate::passthrough) fn get(&self, open: OpenNode) -> Result<Arc<Handle>> {
        let handle = self.by_number.get(open.handle.raw());
        handle
            .filter(|handle| handle.node == open.node)
            .ok_or(Errno::EBADF)
    }

    /// Takes a handle out, if `is_right` says that it is of the kind to be closed. The caller
    /// drops it, and with it the descriptor.
    ///
    /// # Errors
    /// `EBADF` for an unknown handle, or one of another node; what `is_right` says.
    pub(in crate::passthrough) fn remove(
        &self,
        open: OpenNode,
        is_right: impl FnOnce(&Handle) -> Result<()>,
    ) -> Result<Arc<Handle>> {
        let handle = self.get(open)?;
        is_right(&handle)?;
        match self.by_number.remove(&handle) {
            true => Ok(handle),
            false => Err(Errno::EBADF),
        }
    }

    /// Closes everything. Operations that hold a handle finish with it.
    pub(in crate::passthrough) fn clear(&self) {
        for handle in self.by_number.iter() {
            self.by_number.remove(&handle);
        }
    }

    /// How many handles there are.
    #[cfg(test)]
    pub(in crate::passthrough) fn len(&self) -> usize {
        self.by_number.iter().count()
    }
}
