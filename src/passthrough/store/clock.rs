//! What: which pinned nodes could do without their descriptor, in the order of a clock.
//!
//! In: nodes as they are pinned. Out: the ticket of one that has been put out. A hand goes over
//! the pinned nodes, passes by those that were used since it came last (second chance) and puts
//! out the first that was not.
//!
//! Invariants: the clock keeps neither node nor descriptor alive; it remembers numbers, each once,
//! and of those that are gone never many more than of those that are there, so that it shrinks
//! with them. The work of one call is bounded, and so is its patience: after a while it puts out
//! what was used lately, too.
//!
//! ```text
//!   leaves:       hand -> n n n n    files, links, ...: these give first
//!   directories:  hand -> n n        every lookup goes through them: they give when they are
//!                                    more than DIRECTORIES_PER_LEAF times as many
//! ```
//!
//! Locks: one ring at a time, nothing else under it, and none for a node to be counted off. Does
//! not: pin anything.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::fd_budget::FdTicket;
use super::inode::Inode;
use super::movable::Movable;
use super::table::Table;
use crate::fs::types::NodeId;

/// Rings of a kind: pinning on several queues shall seldom meet in one.
const RING_COUNT: usize = 8;
/// Directories are spared as long as there are not that many times as many as leaves.
const DIRECTORIES_PER_LEAF: usize = 4;
/// Nodes that get their second chance in one call; the next is put out though it was used.
const SPARED_MAX: usize = 128;
/// Nodes that one call looks at. Those that cannot be put out (unlinked, in use at this moment)
/// are passed by; a guest may hold many of them.
const VISITS_MAX: usize = 1024;
/// The same for a call that can do without.
const IDLE_VISITS_MAX: usize = 16;
/// What a ring may remember of nodes that are gone, whatever there is of others.
const GONE_KEPT: usize = 64;

/// What the clock tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anything but a directory.
    Leaf,
    /// A directory.
    Directory,
}

/// The ring that a node belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingIndex(u8);

impl RingIndex {
    /// That of a node: numbers follow each other, so the rings fill evenly.
    pub(super) fn of(number: NodeId) -> Self {
        // The mask keeps it below RING_COUNT, a power of two.
        RingIndex(u8::try_from(number.raw() & 7).unwrap_or(0))
    }
}

/// All pinned nodes that can be put out.
#[derive(Debug)]
pub(super) struct Clock {
    leaves: Rings,
    directories: Rings,
    /// Where the nodes are.
    nodes: OnceLock<Weak<Table<Inode>>>,
}

#[derive(Debug)]
struct Rings {
    rings: [Ring; RING_COUNT],
    /// Pinned nodes in all rings.
    count: AtomicUsize,
    /// The ring whose turn it is to be looked at.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Ring {
    numbers: Mutex<VecDeque<u64>>,
    /// How many numbers there are, to see without the lock whether they are too many.
    len: AtomicUsize,
    /// Pinned nodes among them.
    count: AtomicUsize,
}

impl Clock {
    pub(super) fn new() -> Self {
        Clock {
            leaves: Rings::new(),
            directories: Rings::new(),
            nodes: OnceLock::new(),
        }
    }

    /// Tells where the nodes are, once.
    pub(super) fn look_into(&self, nodes: &Arc<Table<Inode>>) {
        let _ = self.nodes.set(Arc::downgrade(nodes));
    }

    /// Puts one node out and gives its ticket, or nothing if none can be.
    pub(super) fn put_one_out(&self) -> Option<FdTicket> {
        let nodes = self.nodes.get()?.upgrade()?;
        let mut spared: usize = 0;
        for _ in 0..VISITS_MAX {
            let inode = self.next(&nodes)?;
            let Some(node) = inode.movable() else {
                continue;
            };
            if spared < SPARED_MAX && node.take_second_chance() {
                spared = spared.saturating_add(1);
            } else if let Some(ticket) = node.put_out() {
                return Some(ticket);
            }
        }
        None
    }

    /// The same, but only if it takes few steps to one that was not used lately.
    pub(super) fn put_idle_one_out(&self) -> Option<FdTicket> {
        let nodes = self.nodes.get()?.upgrade()?;
        for _ in 0..IDLE_VISITS_MAX {
            let inode = self.next(&nodes)?;
            let Some(node) = inode.movable() else {
                continue;
            };
            if node.take_second_chance() {
                continue;
            }
            if let Some(ticket) = node.put_out() {
                return Some(ticket);
            }
        }
        None
    }

    /// Moves the hand over the kind that has to give.
    fn next(&self, nodes: &Table<Inode>) -> Option<Arc<Inode>> {
        // Relaxed here and below: the counts choose, nothing more.
        let leaves = self.leaves.count.load(Ordering::Relaxed);
        let directories = self.directories.count.load(Ordering::Relaxed);
        if leaves >= directories / DIRECTORIES_PER_LEAF {
            self.leaves
                .next(nodes)
                .or_else(|| self.directories.next(nodes))
        } else {
            self.directories
                .next(nodes)
                .or_else(|| self.leaves.next(nodes))
        }
    }

    /// How many nodes are remembered, gone ones included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let rings = self.leaves.rings.iter().chain(&self.directories.rings);
        rings.map(|ring| ring.lock().len()).sum()
    }

    fn rings(&self, kind: Kind) -> &Rings {
        match kind {
            Kind::Leaf => &self.leaves,
            Kind::Directory => &self.directories,
        }
    }

    /// A node is about to be pinned.
    pub(super) fn count_one_more(&self, kind: Kind, ring: RingIndex) {
        let rings = self.rings(kind);
        rings.count.fetch_add(1, Ordering::Relaxed);
        rings.ring(ring).count.fetch_add(1, Ordering::Relaxed);
    }

    /// A node is pinned no more.
    pub(super) fn count_one_less(&self, kind: Kind, ring: RingIndex) {
        let rings = self.rings(kind);
        rings.count.fetch_sub(1, Ordering::Relaxed);
        rings.ring(ring).count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Remembers a node that was pinned, and can be found by its number.
    pub(super) fn add(&self, kind: Kind, ring: RingIndex, number: NodeId, node: &Movable) {
        let ring = self.rings(kind).ring(ring);
        let mut numbers = ring.lock();
        // Under the lock only; so is every change of the mark.
        if !node.is_in_ring.swap(true, Ordering::Relaxed) {
            numbers.push_back(number.raw());
            ring.len.store(numbers.len(), Ordering::Relaxed);
        }
        drop(numbers);
        self.forget_gone(ring);
    }

    /// Nodes of a ring may have gone. The caller holds no lock.
    pub(super) fn some_are_gone(&self, kind: Kind, number: NodeId) {
        self.forget_gone(self.rings(kind).ring(RingIndex::of(number)));
    }

    /// Most nodes may have gone. The caller holds no lock.
    pub(super) fn all_are_gone(&self) {
        let rings = self.leaves.rings.iter().chain(&self.directories.rings);
        rings.for_each(|ring| self.forget_gone(ring));
    }

    /// Clears numbers away when most of them lead nowhere.
    fn forget_gone(&self, ring: &Ring) {
        if !ring.is_overgrown() {
            return;
        }
        let Some(nodes) = self.nodes.get().and_then(Weak::upgrade) else {
            return;
        };
        // Dropped without the lock: the last to hold a node closes its descriptor.
        let mut seen = Vec::new();
        let mut numbers = ring.lock();
        numbers.retain(|number| {
            let present = nodes.get(*number);
            let stays = present.as_deref().is_some_and(stays_in_ring);
            seen.extend(present);
            stays
        });
        let kept = numbers.len();
        numbers.shrink_to(kept.saturating_mul(2));
        ring.len.store(numbers.len(), Ordering::Relaxed);
        drop(numbers);
        drop(seen);
    }
}

/// Whether a ring goes on remembering a node. Under the ring's lock.
fn stays_in_ring(inode: &Inode) -> bool {
    inode.movable().is_some_and(|node| {
        let is_pinned = node.is_pinned();
        if !is_pinned {
            // Whoever pins it now comes to `add` after this.
            node.is_in_ring.store(false, Ordering::Relaxed);
        }
        is_pinned
    })
}

impl Rings {
    fn new() -> Self {
        Rings {
            rings: std::array::from_fn(|_| Ring::default()),
            count: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
        }
    }

    fn ring(&self, index: RingIndex) -> &Ring {
        self.rings
            .get(usize::from(index.0))
            .unwrap_or(&self.rings[0])
    }

    fn next(&self, nodes: &Table<Inode>) -> Option<Arc<Inode>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % RING_COUNT;
        let (before, after) = self.rings.split_at(turn);
        after.iter().chain(before).find_map(|ring| ring.next(nodes))
    }
}

impl Ring {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<u64>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_overgrown(&self) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        self.len.load(Ordering::Relaxed) > count.saturating_mul(2).saturating_add(GONE_KEPT)
    }

    /// What is under the hand, which moves on. The caller may be the last to hold it, so it is
    /// looked at and dropped without the lock.
    fn next(&self, nodes: &Table<Inode>) -> Option<Arc<Inode>> {
        loop {
            let mut numbers = self.lock();
            let number = numbers.pop_front()?;
            let present = nodes.get(number);
            let stays = present.as_deref().is_some_and(stays_in_ring);
            if stays {
                numbers.push_back(number);
            }
            self.len.store(numbers.len(), Ordering::Relaxed);
            drop(numbers);
            if stays {
                return present;
            }
        }
    }
}
