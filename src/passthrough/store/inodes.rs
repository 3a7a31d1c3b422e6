//! What: the nodes that the guest holds, by number and by identity, with their lookup counts.
//!
//! In: files that were found; lookups given back. Out: inodes, and grants of one lookup each.
//! Invariants:
//!   - numbers are never used twice, not even across sessions: an id of an earlier session is
//!     unknown, never another file;
//!   - a node is in both maps or in none, seen from under its identity shard's lock;
//!   - the root is outside both rules: it is not counted and never goes away.
//!
//! Lock order: identity shard, then number shard. Neither is held across a system call; the
//! descriptors of removed nodes are closed after both are released.
//!
//! Why no lookup is lost when FORGET races LOOKUP:
//!
//! ```text
//!   LOOKUP (hit)                      FORGET
//!   lock identity shard               count -= n           (no lock)
//!   find node, count += 1             if it is 0 now:
//!   unlock                              lock identity shard
//!                                       count still 0? remove from both maps
//!                                       unlock, close
//! ```
//!
//! The count leaves 0 only under the lock under which it is looked at again. If LOOKUP came
//! first the node stays; if FORGET came first LOOKUP does not find it and makes a new node.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::inode::{Found, Identity, Inode};
use super::shards::{NumberMap, SHARD_COUNT, remove, shard_of};
use crate::fs::types::NodeId;
use crate::sys::errno::{Errno, Result};

/// One lookup of a node that has just been counted for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a grant that is not guarded by a LookupRef is never taken back"]
pub(in crate::passthrough) struct Granted {
    /// The node.
    pub(in crate::passthrough) node: NodeId,
    /// Whether it is the root of a mount.
    pub(in crate::passthrough) is_mount_root: bool,
}

impl Granted {
    fn of(inode: &Inode) -> Self {
        Granted {
            node: inode.id,
            is_mount_root: inode.is_mount_root,
        }
    }
}

type IdentityMap = HashMap<Identity, Arc<Inode>>;

/// The nodes that the guest holds.
#[derive(Debug)]
pub(in crate::passthrough) struct InodeStore {
    root: Arc<Inode>,
    by_number: [RwLock<NumberMap<Arc<Inode>>>; SHARD_COUNT],
    by_identity: [Mutex<IdentityMap>; SHARD_COUNT],
    next_number: AtomicU64,
}

impl InodeStore {
    /// A store that holds only the root.
    pub(in crate::passthrough) fn new(root: Found) -> Self {
        InodeStore {
            root: Arc::new(Inode::new(NodeId::ROOT, root)),
            by_number: std::array::from_fn(|_| RwLock::default()),
            by_identity: std::array::from_fn(|_| Mutex::default()),
            next_number: AtomicU64::new(NodeId::ROOT.raw().saturating_add(1)),
        }
    }

    /// The inode of a node.
    ///
    /// # Errors
    /// `EBADF` for a node that the guest does not hold.
    pub(in crate::passthrough) fn get(&self, node: NodeId) -> Result<Arc<Inode>> {
        if node == NodeId::ROOT {
            return Ok(Arc::clone(&self.root));
        }
        let shard = shard_of(&self.by_number, node.raw());
        let map = shard.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&node.raw()).cloned().ok_or(Errno::EBADF)
    }

    /// Grants a lookup of the node with this identity, if there is one.
    pub(in crate::passthrough) fn grant(&self, identity: &Identity) -> Option<Granted> {
        let map = self.lock_identity(identity);
        let inode = map.get(identity)?;
        add_lookup(inode);
        Some(Granted::of(inode))
    }

    /// Whether there is a node with this identity. It may be gone by the time this returns.
    pub(in crate::passthrough) fn holds(&self, identity: &Identity) -> bool {
        self.lock_identity(identity).contains_key(identity)
    }

    /// Grants a lookup of a file that was found: of its node, or of a new one.
    pub(in crate::passthrough) fn grant_or_insert(&self, found: Found) -> Granted {
        let identity = found.identity;
        let mut map = self.lock_identity(&identity);
        if let Some(inode) = map.get(&identity) {
            add_lookup(inode);
            let granted = Granted::of(inode);
            // `found` pins the same file once more; it is closed outside the lock.
            drop(map);
            drop(found);
            return granted;
        }
        // Relaxed: the number only has to be unique. It cannot wrap within the life of a host.
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let inode = Arc::new(Inode::new(NodeId::new(number), found));
        let granted = Granted::of(&inode);
        map.insert(identity, Arc::clone(&inode));
        self.write_numbers(number).insert(number, inode);
        granted
    }

    /// Takes `count` lookups back, at most as many as were granted. Unknown nodes are ignored.
    pub(in crate::passthrough) fn forget(&self, node: NodeId, count: u64) {
        if node == NodeId::ROOT {
            return;
        }
        let Ok(inode) = self.get(node) else { return };
        // AcqRel here and in `add_lookup` order the counts of one node; whether a node may go
        // is decided below, under the lock.
        let before = inode
            .lookups
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |lookups| {
                Some(lookups.saturating_sub(count))
            });
        if before.unwrap_or(0) <= count {
            self.remove_if_unused(&inode);
        }
    }

    /// Takes every node but the root away. Operations that hold one finish with it.
    pub(in crate::passthrough) fn clear(&self) {
        for shard in &self.by_identity {
            let mut map = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let removed = std::mem::take(&mut *map);
            for inode in removed.values() {
                remove(&mut self.write_numbers(inode.id.raw()), &inode.id.raw());
            }
            drop(map);
            drop(removed);
        }
    }

    fn remove_if_unused(&self, inode: &Arc<Inode>) {
        let mut map = self.lock_identity(&inode.identity);
        let is_present = map
            .get(&inode.identity)
            .is_some_and(|present| Arc::ptr_eq(present, inode));
        if !is_present || inode.lookups.load(Ordering::Acquire) != 0 {
            return;
        }
        let by_identity = remove(&mut map, &inode.identity);
        let by_number = remove(&mut self.write_numbers(inode.id.raw()), &inode.id.raw());
        drop(map);
        drop((by_identity, by_number));
    }

    fn lock_identity(&self, identity: &Identity) -> MutexGuard<'_, IdentityMap> {
        let key = identity.ino ^ identity.place.mount_id.rotate_left(3);
        shard_of(&self.by_identity, key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write_numbers(&self, number: u64) -> std::sync::RwLockWriteGuard<'_, NumberMap<Arc<Inode>>> {
        shard_of(&self.by_number, number)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many nodes there are besides the root, by number and by identity.
    #[cfg(test)]
    pub(in crate::passthrough) fn len(&self) -> (usize, usize) {
        let by_number = self
            .by_number
            .iter()
            .map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len());
        let by_identity = self
            .by_identity
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len());
        (by_number.sum(), by_identity.sum())
    }
}

/// Counts one more lookup. Only under the lock of the node's identity shard: see the module head.
fn add_lookup(inode: &Inode) {
    inode.lookups.fetch_add(1, Ordering::AcqRel);
}
