//! What: the files and directories that the guest has open, by number.
//!
//! In: what was opened. Out: the same, for as long as an operation needs it. Invariants: numbers
//! are never used twice; a handle belongs to one node and answers only together with it. Locks:
//! one shard at a time, never across a system call; descriptors are closed after it is released.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::contents::WaitingStamp;
use super::fd_budget::HeldFd;
use super::shards::{NumberMap, SHARD_COUNT, remove, shard_of};
use crate::fs::filesystem::OpenNode;
use crate::fs::types::{HandleId, NodeId};
use crate::passthrough::dir::OpenDirectory;
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
    node: NodeId,
    open: Open,
    waiting: Option<WaitingStamp>,
}

impl Handle {
    /// What stands for a node that was not opened by the guest, and has no number.
    pub(in crate::passthrough) fn of_node(node: NodeId, open: Open) -> Self {
        Handle {
            node,
            open,
            waiting: None,
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

/// The files and directories that the guest has open.
#[derive(Debug)]
pub(in crate::passthrough) struct HandleStore {
    by_number: [RwLock<NumberMap<Arc<Handle>>>; SHARD_COUNT],
    next_number: AtomicU64,
}

impl HandleStore {
    /// A store that holds nothing.
    pub(in crate::passthrough) fn new() -> Self {
        HandleStore {
            by_number: std::array::from_fn(|_| RwLock::default()),
            // 0 is what guests send where they have no handle.
            next_number: AtomicU64::new(1),
        }
    }

    /// Gives a number to what was opened.
    pub(in crate::passthrough) fn insert(&self, node: NodeId, open: Open) -> HandleId {
        self.insert_waiting(node, open, None)
    }

    /// The same, with a stamp that waits for the guest to use the handle.
    pub(in crate::passthrough) fn insert_waiting(
        &self,
        node: NodeId,
        open: Open,
        waiting: Option<WaitingStamp>,
    ) -> HandleId {
        // Relaxed: the number only has to be unique.
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let handle = Arc::new(Handle {
            node,
            open,
            waiting,
        });
        self.shard(number)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, handle);
        HandleId::new(number)
    }

    /// What a handle stands for.
    ///
    /// # Errors
    /// `EBADF` for an unknown handle, or one of another node.
    pub(in crate::passthrough) fn get(&self, open: OpenNode) -> Result<Arc<Handle>> {
        let number = open.handle.raw();
        let map = self
            .shard(number)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        match map.get(&number) {
            Some(handle) if handle.node == open.node => Ok(Arc::clone(handle)),
            _ => Err(Errno::EBADF),
        }
    }

    /// Takes a handle out, if `is_right` says that it is of the kind to be closed.
    ///
    /// # Errors
    /// `EBADF` for an unknown handle, or one of another node; what `is_right` says.
    pub(in crate::passthrough) fn remove(
        &self,
        open: OpenNode,
        is_right: impl FnOnce(&Handle) -> Result<()>,
    ) -> Result<Arc<Handle>> {
        let number = open.handle.raw();
        let mut map = self
            .shard(number)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match map.get(&number) {
            Some(handle) if handle.node == open.node => is_right(handle)?,
            _ => return Err(Errno::EBADF),
        }
        // The caller drops the handle, and with it the descriptor, when the lock is released.
        remove(&mut map, &number).ok_or(Errno::EBADF)
    }

    /// Closes everything. Operations that hold a handle finish with it.
    pub(in crate::passthrough) fn clear(&self) {
        for shard in &self.by_number {
            let removed =
                std::mem::take(&mut *shard.write().unwrap_or_else(PoisonError::into_inner));
            drop(removed);
        }
    }

    fn shard(&self, number: u64) -> &RwLock<NumberMap<Arc<Handle>>> {
        shard_of(&self.by_number, number)
    }

    /// How many handles there are.
    #[cfg(test)]
    pub(in crate::passthrough) fn len(&self) -> usize {
        self.by_number
            .iter()
            .map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }
}
