//! What: nodes that the guest has forgotten but may ask for by number again.
//!
//! In: nodes as their last lookup is given back. Out: those that have waited longest, when there
//! are too many. A guest that exports the mount by NFS names files to its clients by node id,
//! and forgets them meanwhile; with EXPORT_SUPPORT it counts on LOOKUP of `.` to find them again.
//! Invariants: what waits here has neither descriptor nor mount of its own; a node is in the
//! queue once, and one that was asked for in between is not the next to go; the queue keeps no
//! node alive, which is for the maps of `inodes` to do. Locks: the queue's, a leaf.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::inode::Inode;

/// Nodes that are kept. Each takes about 250 bytes, so this is some 33 MB; only a guest that has
/// forgotten so many makes it so.
const RETIRED_MAX: usize = if cfg!(test) { 64 } else { 131_072 };

/// What becomes of nodes that the guest has forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::passthrough) enum Forgotten {
    /// They are kept for a while: the guest knows how to ask for them.
    Retire,
    /// They are gone at once.
    Vanish,
}

/// Not in the queue.
const OUT: u8 = 0;
/// In the queue.
const IN: u8 = 1;
/// In the queue, and asked for since it came there.
const RENEWED: u8 = 2;

/// The place of a node in the queue, kept by the node.
#[derive(Debug, Default)]
pub(super) struct QueueMark(AtomicU8);

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Retired {
    is_on: AtomicBool,
    queue: Mutex<VecDeque<Weak<Inode>>>,
}

impl Retired {
    /// Whether nodes are kept at all.
    pub(super) fn is_on(&self) -> bool {
        // Relaxed: it changes only while no request is served.
        self.is_on.load(Ordering::Relaxed)
    }

    /// Forgets all nodes, and from now on keeps some or none.
    pub(super) fn restart(&self, forgotten: Forgotten) {
        let is_on = forgotten == Forgotten::Retire;
        self.is_on.store(is_on, Ordering::Relaxed);
        let queue = std::mem::take(&mut *self.lock());
        drop(queue);
    }

    /// Keeps a node, and gives the one that has to go for it. The guest may hold that again.
    pub(super) fn push(&self, inode: &Arc<Inode>) -> Option<Arc<Inode>> {
        let mut queue = self.lock();
        // Relaxed here and below: marks change under the queue's lock only.
        let mark = &inode.queue_mark.0;
        if mark.load(Ordering::Relaxed) != OUT {
            mark.store(RENEWED, Ordering::Relaxed);
            return None;
        }
        mark.store(IN, Ordering::Relaxed);
        queue.push_back(Arc::downgrade(inode));
        if queue.len() <= RETIRED_MAX {
            return None;
        }
        // Every renewed node moves on once, so this ends.
        while let Some(oldest) = queue.pop_front() {
            // One that is gone altogether has made room.
            let inode = oldest.upgrade()?;
            if inode.queue_mark.0.fetch_sub(1, Ordering::Relaxed) != RENEWED {
                return Some(inode);
            }
            queue.push_back(oldest);
        }
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Weak<Inode>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
