//! What: directories that the guest reads without opening them (`--no-opendir`).
//!
//! In: a node, and the cookie from which the guest wants to go on. Out: an open directory that
//! stands there already, if one does. A guest reads a directory by several requests; what tells
//! those of one reader from another's is only where they stand. Invariants: a stream has one
//! reader at a time, since it is taken out; at most [`STREAMS_MAX`] wait, and the one that has
//! waited longest goes first. Lock: never held across a system call. Does not: open anything.
//!
//! ```text
//!   READDIR at 0 --> open                    -+-> entries --> put (node, next cookie)
//!   READDIR at n --> take (node, n), or open -+-> no more --> close
//! ```
//!
//! A reader whose stream is gone costs open(2), lseek(2) and a buffer read again. It finds its
//! place by the cookie, as it would on a server of NFS.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::dir::OpenDirectory;
use crate::fs::types::NodeId;

/// Most directories that wait for their readers: more than a guest reads at once, and no more
/// than 2 MiB of buffers.
const STREAMS_MAX: usize = 64;

#[derive(Debug)]
struct Waiting {
    node: NodeId,
    position: u64,
    directory: OpenDirectory,
}

/// Directories between two requests of their readers.
#[derive(Debug, Default)]
pub(super) struct DirStreams {
    waiting: Mutex<VecDeque<Waiting>>,
}

impl DirStreams {
    /// Takes out the directory that stands at `position` of a node.
    pub(super) fn take(&self, node: NodeId, position: u64) -> Option<OpenDirectory> {
        let mut waiting = self.lock();
        let index = waiting
            .iter()
            .position(|one| one.node == node && one.position == position)?;
        let one = waiting.remove(index)?;
        Some(one.directory)
    }

    /// Lets a directory wait where it stands.
    pub(super) fn put(&self, node: NodeId, directory: OpenDirectory) {
        let Some(position) = directory.position() else {
            // Nobody knows where it stands.
            return;
        };
        let mut waiting = self.lock();
        let evicted = match waiting.len() >= STREAMS_MAX {
            true => waiting.pop_front(),
            false => None,
        };
        waiting.push_back(Waiting {
            node,
            position,
            directory,
        });
        drop(waiting);
        drop(evicted);
    }

    /// Closes all of a node.
    pub(super) fn remove(&self, node: NodeId) {
        let mut waiting = self.lock();
        let (removed, kept) = std::mem::take(&mut *waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(|one| one.node == node);
        *waiting = kept;
        drop(waiting);
        drop(removed);
    }

    /// Closes all. Gives how many there were.
    pub(super) fn clear(&self) -> usize {
        let removed = std::mem::take(&mut *self.lock());
        removed.len()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}
