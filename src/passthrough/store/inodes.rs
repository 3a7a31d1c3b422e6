//! What: the nodes that the guest holds, by number and by identity, with their lookup counts.
//!
//! In: files that were found; lookups given back. Out: inodes, and grants of one lookup each.
//! Invariants:
//!   - numbers are never used twice, not even across sessions: an id of an earlier session is
//!     unknown, never another file (see `table`: a slot is used again under a new generation).
//!     They start at random, so neither does an id that somebody kept from an earlier daemon
//!     (NFS clients of a guest do) name a file of this one; and they are never 0 or 1 but for
//!     the root;
//!   - a node is in the table and in the map of identities or in neither, seen from under its
//!     identity shard's lock, but for those that another file with the same identity has pushed
//!     out: they are found by number until they are forgotten, and lead nowhere;
//!   - the root is outside both rules: it is not counted and never goes away.
//!
//! Locks: none from a number to its node, nor for a FORGET that leaves lookups over. Order:
//! identity shard, then a list of free slots or what an inode locks by itself. None is held
//! across a system call; the descriptors of removed nodes are closed after all are released.
//!
//! Why no lookup is lost when FORGET races LOOKUP:
//!
//! ```text
//!   LOOKUP (hit)                      FORGET
//!   hint -> number -> node (no lock)  number -> node       (no lock)
//!   its identity? count > 0? += 1     count -= n           (no lock)
//!   else: lock identity shard         if it is 0 now:
//!         find node, count += 1
//!         unlock
//!                                       lock identity shard
//!                                       count still 0? remove from both maps, or retire
//!                                       unlock, close
//! ```
//!
//! The count leaves 0 only under the lock under which it is looked at again. If LOOKUP came
//! first the node stays; if FORGET came first LOOKUP does not find it and makes a new node, or
//! finds it retired and takes it back. A FORGET that found the node by number just before
//! another removed it has a node whose count is 0, and changes nothing: the slot, and whatever
//! is in it by now, is not touched by way of an old node. Two FORGETs that both come to 0 both
//! look again under the lock; the table lets one of them take the node out.

use std::sync::{Arc, MutexGuard};

use super::admit::Interest;
use super::fd_budget::FdBudget;
use super::guest_ino::{PlaceIndices, Whereabouts};
use super::hints::Hints;
use super::identities::{Identities, IdentityMap};
use super::inode::{Found, Identity, Inode};
use super::mounts::MountTable;
use super::movable::Movable;
use super::retired::{Forgotten, Retired};
use super::table::{Numbered, Table};
use super::trim::Trim;
use crate::fs::types::NodeId;
use crate::sys::errno::{Errno, Result};
use crate::sys::file_handle::FileHandle;
use crate::sys::meta::FileStat;

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

/// What is known of a name by its identity and type alone.
pub(in crate::passthrough) enum ByStat {
    /// It is the node that was granted.
    Granted(Granted),
    /// It is a cold node or a later file with its inode number.
    Cold {
        /// The node was used since it became cold.
        was_used: bool,
    },
    /// It is no node.
    Unknown,
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

/// What came of a file that was to become a node.
pub(super) enum Inserted {
    /// It is one, and a lookup of it is granted.
    Granted(Granted),
    /// Its handle has to be known first.
    NotYet(Found),
}

impl Numbered for Inode {
    fn number(&self) -> u64 {
        self.id.raw()
    }
}

/// The nodes that the guest holds.
#[derive(Debug)]
pub(in crate::passthrough) struct InodeStore {
    root: Arc<Inode>,
    by_number: Arc<Table<Inode>>,
    by_identity: Identities,
    hints: Hints,
    retired: Retired,
    trim: Arc<Trim>,
    pub(super) mounts: MountTable,
    pub(super) places: PlaceIndices,
    budget: Arc<FdBudget>,
}

impl InodeStore {
    /// A store that holds only the root. `first_number` is that of the next node, below 2^62.
    pub(super) fn with_root(
        root: Found,
        mounts: MountTable,
        budget: Arc<FdBudget>,
        first_number: u64,
    ) -> Self {
        let first_number = first_number.max(NodeId::ROOT.raw().saturating_add(1));
        let by_number = Arc::new(Table::new(first_number));
        budget.clock.look_into(&by_number);
        InodeStore {
            places: PlaceIndices::new(root.identity.place),
            root: Arc::new(Inode::new(NodeId::ROOT, root)),
            by_number,
            by_identity: Identities::new(),
            hints: Hints::new(),
            retired: Retired::default(),
            trim: Arc::default(),
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
        self.by_number.get(node.raw())
    }

    /// Grants a lookup of the node with this identity, if there is one that is pinned, or was born
    /// when that file was. Whoever asks has read `stat` by name; if the inode number was given to
    /// another file since, the file that had it is not what is pinned now: that has been the only
    /// one of its number since before it was pinned.
    pub(in crate::passthrough) fn grant_by_stat(
        &self,
        identity: &Identity,
        stat: &FileStat,
        interest: Interest,
    ) -> ByStat {
        if let Some(granted) = self.grant_by_hint(identity, stat, interest) {
            return ByStat::Granted(granted);
        }
        let map = self.lock_identity(identity);
        let inode = map.get(identity);
        let Some(inode) = inode.filter(|inode| inode.file_type == stat.file_type()) else {
            return ByStat::Unknown;
        };
        let was_used = inode.movable().is_some_and(Movable::was_used);
        let is_it = inode.is_pinned() || inode.is_surely(stat);
        match is_it.then(|| self.add_lookup(inode)).flatten() {
            Some(granted) => {
                note_interest(inode, interest);
                self.hints.put(identity, inode.id);
                ByStat::Granted(granted)
            }
            None if inode.is_pinned() => ByStat::Unknown,
            None => ByStat::Cold { was_used },
        }
    }

    /// The same without a lock, for most nodes that the guest holds.
    fn grant_by_hint(
        &self,
        identity: &Identity,
        stat: &FileStat,
        interest: Interest,
    ) -> Option<Granted> {
        let inode = self.by_number.get(self.hints.get(identity)?.raw())?;
        let is_it = inode.identity == *identity
            && inode.file_type == stat.file_type()
            && (inode.is_pinned() || inode.is_surely(stat));
        if !is_it || !inode.lookups.add_if_held() {
            return None;
        }
        note_interest(&inode, interest);
        Some(Granted::of(&inode))
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
    /// the caller has pinned or open, or has read after the identity, by the same name.
    pub(in crate::passthrough) fn grant_named(
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

    /// Whether there is a node with this identity. It may be gone by the time this returns.
    pub(in crate::passthrough) fn holds(&self, identity: &Identity) -> bool {
        let hinted = self.hints.get(identity);
        let hinted = hinted.and_then(|node| self.by_number.get(node.raw()));
        hinted.is_some_and(|inode| inode.identity == *identity)
            || self.lock_identity(identity).get(identity).is_some()
    }

    /// Grants a lookup of a file that the caller has pinned or open: of its node, or of a new
    /// one. Gives the file back if there is a cold node with its identity: then its handle has
    /// to tell, see [`Self::insert_named`].
    ///
    /// # Errors
    /// `ENFILE` when there are as many nodes as there are numbers for.
    pub(super) fn insert(&self, found: Found) -> Result<Inserted> {
        let map = self.lock_identity(&found.identity);
        if map
            .get(&found.identity)
            .is_some_and(|inode| !inode.is_pinned())
        {
            return Ok(Inserted::NotYet(found));
        }
        self.insert_locked(map, found, None).map(Inserted::Granted)
    }

    /// The same for a file whose handle is known; `None` if it has none. A cold node that has
    /// its identity but another handle is of the past: its identity passes to the new node.
    ///
    /// # Errors
    /// `ENFILE` when there are as many nodes as there are numbers for.
    pub(super) fn insert_named(
        &self,
        found: Found,
        handle: Option<&FileHandle>,
    ) -> Result<Granted> {
        self.insert_locked(self.lock_identity(&found.identity), found, handle)
    }

    fn insert_locked(
        &self,
        mut map: MutexGuard<'_, IdentityMap>,
        found: Found,
        handle: Option<&FileHandle>,
    ) -> Result<Granted> {
        let identity = found.identity;
        if let Some(inode) = map.get(&identity)
            && (inode.is_pinned() || handle.is_some_and(|handle| inode.is_named(handle)))
            && let Some(granted) = self.add_lookup(inode)
        {
            // `found` may pin the same file once more; it is closed outside the lock.
            drop(map);
            drop(found);
            return Ok(granted);
        }
        let pushed_out = self.push_out(&mut map, &identity);
        let inode = self
            .by_number
            .insert_with(|number| Inode::new(NodeId::new(number), found));
        if let Some(inode) = &inode {
            map.insert(Arc::clone(inode));
            self.hints.put(&identity, inode.id);
        }
        drop(map);
        drop(pushed_out);
        if let Some(inode) = &inode
            && let Some(movable) = inode.movable()
        {
            movable.show_to_clock(inode.id);
        }
        inode.as_deref().map(Granted::of).ok_or(Errno::ENFILE)
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
        let is_known = map.has(inode);
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
        if inode.lookups.take(count) {
            self.let_go(&inode);
        }
    }

    /// Takes every node but the root away. Operations that hold one finish with it.
    /// `forgotten` says what becomes of nodes from now on.
    pub(in crate::passthrough) fn restart(&self, forgotten: Forgotten) {
        for mut shard in self.by_identity.each() {
            let removed = shard.take_all();
            drop(shard);
            drop(removed);
        }
        let mut count: usize = 0;
        for inode in self.by_number.iter() {
            self.by_number.remove(&inode);
            count = count.saturating_add(1);
        }
        self.budget.clock.all_are_gone();
        self.trim.note(count);
        self.retired.restart(forgotten);
    }

    /// Removes or retires a node that has no lookups, unless it has by now.
    fn let_go(&self, inode: &Arc<Inode>) {
        // Makes system calls, so it comes before the lock.
        let retiring = inode
            .movable()
            .filter(|movable| self.retired.is_on() && movable.could_be_cold());
        let map = self.lock_identity(&inode.identity);
        let is_known = map.has(inode);
        let Some(movable) = retiring.filter(|_| is_known) else {
            return self.remove_unless_held(map, inode);
        };
        if inode.is_held() {
            return;
        }
        let unpinned = movable.unpin();
        if movable.is_pinned() {
            // An operation is at work with its descriptor. No sane guest forgets a node by then.
            return self.remove_unless_held(map, inode);
        }
        let closed = (unpinned, inode.leave_mount());
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
        let is_known = map.has(inode);
        let by_identity = is_known.then(|| map.remove(&inode.identity));
        self.by_number.remove(inode);
        drop(map);
        drop(by_identity);
        if let Some(movable) = inode.movable() {
            movable.leave_clock(inode.id);
        }
        self.trim.note(1);
    }

    /// Takes an identity from the node that had it. The caller drops what is returned without
    /// the lock.
    fn push_out(&self, map: &mut IdentityMap, identity: &Identity) -> Option<Arc<Inode>> {
        let pushed_out = map.remove(identity)?;
        if !pushed_out.is_held() {
            self.by_number.remove(&pushed_out);
        }
        Some(pushed_out)
    }

    /// Counts one more lookup, if the mount of the node is still there. Only under the lock of
    /// the node's identity shard: see the module head.
    fn add_lookup(&self, inode: &Inode) -> Option<Granted> {
        if !inode.is_held() && !inode.rejoin_mount() {
            return None;
        }
        inode.lookups.add();
        // What is cold is touched where it may be pinned again: see `admit`.
        if let Some(movable) = inode.movable()
            && movable.is_pinned()
        {
            movable.touch();
        }
        Some(Granted::of(inode))
    }

    fn lock_identity(&self, identity: &Identity) -> MutexGuard<'_, IdentityMap> {
        self.by_identity.lock(identity)
    }

    /// How many descriptors the store keeps besides those of nodes.
    #[cfg(test)]
    pub(in crate::passthrough) fn mounts_open(&self) -> usize {
        self.mounts.open_count()
    }

    /// How many nodes the guest holds besides the root, by number and by identity.
    #[cfg(test)]
    pub(in crate::passthrough) fn len(&self) -> (usize, usize) {
        let by_number = self.by_number.iter().filter(|inode| inode.is_held());
        let by_identity = self.by_identity.each().map(|map| map.held_count());
        (by_number.count(), by_identity.sum())
    }
}

/// The guest has asked for a node, or met it in a listing. Every lookup of what is pinned counts.
fn note_interest(inode: &Inode, interest: Interest) {
    if let Some(movable) = inode.movable()
        && (interest == Interest::Asked || movable.is_pinned())
    {
        movable.touch();
    }
}
