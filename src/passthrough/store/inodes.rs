//! What: the nodes that the guest holds, by number and by identity, with their lookup counts.
//!
//! In: files that were found; lookups given back. Out: inodes, and grants of one lookup each.
//! Invariants:
//!   - numbers are never used twice, not even across sessions: an id of an earlier session is
//!     unknown, never another file. They start at random, so neither does an id that somebody
//!     kept from an earlier daemon (NFS clients of a guest do) name a file of this one;
//!   - a node is in both maps or in none, seen from under its identity shard's lock, but for
//!     those that another file with the same identity has pushed out: they are found by number
//!     until they are forgotten, and lead nowhere;
//!   - the root is outside both rules: it is not counted and never goes away.
//!
//! Lock order: identity shard, then number shard or what an inode locks by itself. None is held
//! across a system call; the descriptors of removed nodes are closed after all are released.
//!
//! Why no lookup is lost when FORGET races LOOKUP:
//!
//! ```text
//!   LOOKUP (hit)                      FORGET
//!   lock identity shard               count -= n           (no lock)
//!   find node, count += 1             if it is 0 now:
//!   unlock                              lock identity shard
//!                                       count still 0? remove from both maps, or retire
//!                                       unlock, close
//! ```
//!
//! The count leaves 0 only under the lock under which it is looked at again. If LOOKUP came
//! first the node stays; if FORGET came first LOOKUP does not find it and makes a new node, or
//! finds it retired and takes it back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::fd_budget::FdBudget;
use super::guest_ino::{PlaceIndices, Whereabouts};
use super::inode::{Found, Identity, Inode};
use super::mounts::MountTable;
use super::retired::{Forgotten, Retired};
use super::shards::{NumberMap, SHARD_COUNT, remove, shard_of};
use crate::fs::types::NodeId;
use crate::sys::errno::{Errno, Result};
use crate::sys::file_handle::FileHandle;
use crate::sys::meta::FileType;

/// One lookup of a node that has just been counted for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a grant that is not guarded by a LookupRef is never taken back"]
pub(in crate::passthrough) struct Granted {
    /// The node.
    pub(in crate::passthrough) node: NodeId,
    /// Where it is.
    pub(in crate::passthrough) whereabouts: Whereabouts,
}

impl Granted {
    fn of(inode: &Inode) -> Self {
        Granted {
            node: inode.id,
            whereabouts: inode.whereabouts,
        }
    }
}

/// What is known of a file that is probably no node yet.
pub(super) enum Known {
    /// It is the node that was granted.
    Granted(Granted),
    /// There is a cold node with its identity, which may be this file or one of the past.
    Perhaps,
    /// There is no such node.
    No,
}

type IdentityMap = HashMap<Identity, Arc<Inode>>;

/// The nodes that the guest holds.
#[derive(Debug)]
pub(in crate::passthrough) struct InodeStore {
    root: Arc<Inode>,
    by_number: [RwLock<NumberMap<Arc<Inode>>>; SHARD_COUNT],
    by_identity: [Mutex<IdentityMap>; SHARD_COUNT],
    next_number: AtomicU64,
    retired: Retired,
    pub(super) mounts: MountTable,
    pub(super) places: PlaceIndices,
    budget: Arc<FdBudget>,
}

impl InodeStore {
    /// A store that holds only the root. `first_number` is that of the next node; any that is
    /// far from wrapping will do.
    pub(super) fn with_root(
        root: Found,
        mounts: MountTable,
        budget: Arc<FdBudget>,
        first_number: u64,
    ) -> Self {
        let first_number = first_number.max(NodeId::ROOT.raw().saturating_add(1));
        InodeStore {
            places: PlaceIndices::new(root.identity.place),
            root: Arc::new(Inode::new(NodeId::ROOT, root)),
            by_number: std::array::from_fn(|_| RwLock::default()),
            by_identity: std::array::from_fn(|_| Mutex::default()),
            next_number: AtomicU64::new(first_number),
            retired: Retired::default(),
            mounts,
            budget,
        }
    }

    /// The descriptors that may be held for the guest.
    pub(in crate::passthrough) fn budget(&self) -> &Arc<FdBudget> {
        &self.budget
    }

    /// Whether nodes of the root's file system can be kept as file handles.
    pub(in crate::passthrough) fn has_handles(&self) -> bool {
        self.mounts.has_handles()
    }

    /// The root.
    pub(in crate::passthrough) fn root(&self) -> &Arc<Inode> {
        &self.root
    }

    /// The inode of a node.
    ///
    /// # Errors
    /// `EBADF` for a node that the guest does not hold.
    pub(in crate::passthrough) fn get(&self, node: NodeId) -> Result<Arc<Inode>> {
        self.get_or_retired(node)
            .filter(|inode| inode.is_held())
            .ok_or(Errno::EBADF)
    }

    /// The inode of a node that the guest holds or has forgotten not too long ago.
    pub(in crate::passthrough) fn get_or_retired(&self, node: NodeId) -> Option<Arc<Inode>> {
        if node == NodeId::ROOT {
            return Some(Arc::clone(&self.root));
        }
        let shard = shard_of(&self.by_number, node.raw());
        let map = shard.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&node.raw()).cloned()
    }

    /// Grants a lookup of the node with this identity, if there is one that is pinned. Whoever
    /// asks has read identity and type of a file by name; when its inode number was given to
    /// another file since, the file that had it is not what is pinned now.
    pub(in crate::passthrough) fn grant_pinned(
        &self,
        identity: &Identity,
        file_type: FileType,
    ) -> Option<Granted> {
        let map = self.lock_identity(identity);
        let inode = map.get(identity)?;
        // Pinned now, it has been the only file of that number since before it was pinned.
        if inode.file_type != file_type || !inode.is_pinned() {
            return None;
        }
        self.add_lookup(inode)
    }

    /// The same for a file that the caller has pinned or open.
    pub(super) fn recognize(&self, identity: &Identity) -> Known {
        let map = self.lock_identity(identity);
        match map.get(identity) {
            None => Known::No,
            // Both are pinned, so they cannot share an identity and be two files.
            Some(inode) if inode.is_pinned() => match self.add_lookup(inode) {
                Some(granted) => Known::Granted(granted),
                None => Known::Perhaps,
            },
            Some(_) => Known::Perhaps,
        }
    }

    /// Grants a lookup of the node with this identity if it is the file with this handle, which
    /// the caller has pinned or open.
    pub(super) fn grant_named(
        &self,
        identity: &Identity,
        handle: &FileHandle,
    ) -> Option<(Granted, Arc<Inode>)> {
        let map = self.lock_identity(identity);
        let inode = map.get(identity)?;
        if !inode.is_pinned() && !inode.is_named(handle) {
            return None;
        }
        let granted = self.add_lookup(inode)?;
        Some((granted, Arc::clone(inode)))
    }

    /// Whether there is a pinned node with this identity. It may be gone by the time this
    /// returns.
    pub(in crate::passthrough) fn holds_pinned(&self, identity: &Identity) -> bool {
        self.lock_identity(identity)
            .get(identity)
            .is_some_and(|inode| inode.is_pinned())
    }

    /// Grants a lookup of a file that the caller has pinned or open: of its node, or of a new
    /// one. Gives the file back if there is a cold node with its identity: then its handle has
    /// to tell, see [`Self::insert_named`].
    pub(super) fn insert(&self, found: Found) -> std::result::Result<Granted, Found> {
        let map = self.lock_identity(&found.identity);
        if map
            .get(&found.identity)
            .is_some_and(|inode| !inode.is_pinned())
        {
            return Err(found);
        }
        Ok(self.insert_locked(map, found, None))
    }

    /// The same for a file whose handle is known; `None` if it has none. A cold node that has
    /// its identity but another handle is of the past: its identity passes to the new node.
    pub(super) fn insert_named(&self, found: Found, handle: Option<&FileHandle>) -> Granted {
        self.insert_locked(self.lock_identity(&found.identity), found, handle)
    }

    fn insert_locked(
        &self,
        mut map: MutexGuard<'_, IdentityMap>,
        found: Found,
        handle: Option<&FileHandle>,
    ) -> Granted {
        let identity = found.identity;
        if let Some(inode) = map.get(&identity)
            && (inode.is_pinned() || handle.is_some_and(|handle| inode.is_named(handle)))
            && let Some(granted) = self.add_lookup(inode)
        {
            // `found` may pin the same file once more; it is closed outside the lock.
            drop(map);
            drop(found);
            return granted;
        }
        let pushed_out = self.push_out(&mut map, &identity);
        // Relaxed: the number only has to be unique. It cannot wrap within the life of a host.
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let inode = Arc::new(Inode::new(NodeId::new(number), found));
        let granted = Granted::of(&inode);
        map.insert(identity, Arc::clone(&inode));
        self.write_numbers(number).insert(number, inode);
        drop(map);
        drop(pushed_out);
        granted
    }

    /// Grants a lookup of a node that is known by number, held or retired, and was just reached.
    ///
    /// # Errors
    /// `ESTALE` when it has gone meanwhile.
    pub(in crate::passthrough) fn grant_again(&self, inode: &Arc<Inode>) -> Result<Granted> {
        if inode.id == NodeId::ROOT {
            return Ok(Granted::of(inode));
        }
        let map = self.lock_identity(&inode.identity);
        let is_known = map
            .get(&inode.identity)
            .is_some_and(|present| Arc::ptr_eq(present, inode));
        if !is_known && !inode.is_held() {
            return Err(Errno::ESTALE);
        }
        self.add_lookup(inode).ok_or(Errno::ESTALE)
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
            self.let_go(&inode);
        }
    }

    /// Takes every node but the root away. Operations that hold one finish with it.
    /// `forgotten` says what becomes of nodes from now on.
    pub(in crate::passthrough) fn restart(&self, forgotten: Forgotten) {
        for shard in &self.by_identity {
            let removed =
                std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            drop(removed);
        }
        for shard in &self.by_number {
            let removed =
                std::mem::take(&mut *shard.write().unwrap_or_else(PoisonError::into_inner));
            drop(removed);
        }
        self.retired.restart(forgotten);
    }

    /// Removes or retires a node that has no lookups, unless it has by now.
    fn let_go(&self, inode: &Arc<Inode>) {
        // Makes system calls, so it comes before the lock.
        let retiring = inode
            .movable()
            .filter(|movable| self.retired.is_on() && movable.could_be_cold());
        let map = self.lock_identity(&inode.identity);
        let is_known = map
            .get(&inode.identity)
            .is_some_and(|present| Arc::ptr_eq(present, inode));
        let Some(movable) = retiring.filter(|_| is_known) else {
            return self.remove_unless_held(map, inode);
        };
        if inode.is_held() {
            return;
        }
        let closed = (movable.unpin(), inode.leave_mount());
        drop(map);
        drop(closed);
        if let Some(oldest) = self.retired.push(inode) {
            let map = self.lock_identity(&oldest.identity);
            self.remove_unless_held(map, &oldest);
        }
    }

    fn remove_unless_held(&self, mut map: MutexGuard<'_, IdentityMap>, inode: &Arc<Inode>) {
        if inode.is_held() {
            return;
        }
        let is_known = map
            .get(&inode.identity)
            .is_some_and(|present| Arc::ptr_eq(present, inode));
        let by_identity = is_known.then(|| remove(&mut map, &inode.identity));
        let by_number = remove(&mut self.write_numbers(inode.id.raw()), &inode.id.raw());
        drop(map);
        drop((by_identity, by_number));
    }

    /// Takes an identity from the node that had it. The caller drops what is returned without
    /// the lock.
    fn push_out(
        &self,
        map: &mut IdentityMap,
        identity: &Identity,
    ) -> (Option<Arc<Inode>>, Option<Arc<Inode>>) {
        let by_identity = remove(map, identity);
        let by_number = by_identity
            .as_ref()
            .filter(|inode| !inode.is_held())
            .and_then(|inode| remove(&mut self.write_numbers(inode.id.raw()), &inode.id.raw()));
        (by_identity, by_number)
    }

    /// Counts one more lookup, if the mount of the node is still there. Only under the lock of
    /// the node's identity shard: see the module head.
    fn add_lookup(&self, inode: &Inode) -> Option<Granted> {
        if !inode.is_held() && !inode.rejoin_mount() {
            return None;
        }
        inode.lookups.fetch_add(1, Ordering::AcqRel);
        if let Some(movable) = inode.movable() {
            movable.touch();
        }
        Some(Granted::of(inode))
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

    /// How many descriptors the store keeps besides those of nodes.
    #[cfg(test)]
    pub(in crate::passthrough) fn mounts_open(&self) -> usize {
        self.mounts.open_count()
    }

    /// How many nodes the guest holds besides the root, by number and by identity.
    #[cfg(test)]
    pub(in crate::passthrough) fn len(&self) -> (usize, usize) {
        let held = |inodes: &mut dyn Iterator<Item = &Arc<Inode>>| {
            inodes.filter(|inode| inode.is_held()).count()
        };
        let by_number = self.by_number.iter().map(|shard| {
            held(
                &mut shard
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .values(),
            )
        });
        let by_identity = self.by_identity.iter().map(|shard| {
            held(
                &mut shard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .values(),
            )
        });
        (by_number.sum(), by_identity.sum())
    }
}
